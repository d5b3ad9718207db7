-- The requests of `scripts/load peak`. PEAK_ROUTE says which, PEAK_ITEMS names a file with a product and its inventory a
-- line, PEAK_TOKEN is a buyer's access token.

local route = os.getenv("PEAK_ROUTE")
local json = { ["Content-Type"] = "application/json" }
local signed = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. os.getenv("PEAK_TOKEN") }
local requests, carts = {}, {}

local function add(product)
    return wrk.format("POST", "/cart/add-to-cart", json, '{"productId":"' .. product .. '","quantity":1}')
end

local make = {
    live = function() return wrk.format("GET", "/health/live") end,
    product = function(product) return wrk.format("GET", "/products/" .. product) end,
    inventory = function(_, inventory) return wrk.format("GET", "/inventories/" .. inventory, signed) end,
    add = add,
    buy = add,
}

function init()
    for line in io.lines(os.getenv("PEAK_ITEMS")) do
        local product, inventory = line:match("(%S+) (%S+)")
        requests[#requests + 1] = make[route](product, inventory)
    end
    math.randomseed(1)
end

function request()
    if route == "buy" and #carts > 0 then
        return wrk.format("POST", "/orders/checkout", signed, '{"cartSessionId":"' .. table.remove(carts) .. '"}')
    end
    return requests[math.random(#requests)]
end

-- wrk reads answers in full only when there is this function, which costs: so only where carts are to be known.
if route == "buy" then
    response = function(status, _, body)
        if status == 200 then
            carts[#carts + 1] = body:match('"cartSessionId":"(%x+)"')
        end
    end
end
