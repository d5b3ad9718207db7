-- The requests of `scripts/load peak`. PEAK_ROUTE says which, PEAK_ITEMS names a file with a product and its inventory a
-- line, PEAK_CARTS one with a cart a line, which is written (fill) or read (checkout); PEAK_TOKEN is a buyer's access token.

local route = os.getenv("PEAK_ROUTE")
local json = { ["Content-Type"] = "application/json" }
local signed = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. os.getenv("PEAK_TOKEN") }
local requests, carts = {}, nil

local function add(product)
    return wrk.format("POST", "/cart/add-to-cart", json, '{"productId":"' .. product .. '","quantity":1}')
end

local make = {
    live = function() return wrk.format("GET", "/health/live") end,
    product = function(product) return wrk.format("GET", "/products/" .. product) end,
    inventory = function(_, inventory) return wrk.format("GET", "/inventories/" .. inventory, signed) end,
    add = add,
    fill = add,
}

local function checkout(cart)
    return wrk.format("POST", "/orders/checkout", signed, '{"cartSessionId":"' .. cart .. '"}')
end

function init()
    if route == "checkout" then
        -- Made beforehand, so that making them is not measured.
        for cart in io.lines(os.getenv("PEAK_CARTS")) do
            requests[#requests + 1] = checkout(cart)
        end
        return
    end
    for line in io.lines(os.getenv("PEAK_ITEMS")) do
        local product, inventory = line:match("(%S+) (%S+)")
        requests[#requests + 1] = make[route](product, inventory)
    end
    math.randomseed(1)
    if route == "fill" then
        -- It is written to the end when wrk ends.
        carts = io.open(os.getenv("PEAK_CARTS"), "w")
    end
end

if route == "checkout" then
    -- Each cart once. When all but one are bought it is over.
    function request()
        if #requests == 1 then
            wrk.thread:stop()
            return requests[1]
        end
        return table.remove(requests)
    end
else
    function request()
        return requests[math.random(#requests)]
    end
end

-- wrk reads answers in full only when there is this function, which costs: so only where carts are to be known.
if route == "fill" then
    function response(status, _, body)
        if status == 200 then
            carts:write(body:match('"cartSessionId":"(%x+)"'), "\n")
        end
    end
end
