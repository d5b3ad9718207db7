-- Shows one key of a cart as the database has it, unless something newer is shown already. For a cluster, whose nodes have
-- a key each; one server is told of whole carts (show_carts.lua).
--
-- KEYS  1 the key; 2 the key that remembers which version it shows, of the same slot
-- ARGV  1 the version
--       2 for how many milliseconds the key lives; 0: there is to be none
--       3 for how many milliseconds the version is remembered
--       4 a remembered version that is known to be wrong, or nothing
--       5 "text" and one value, or "hash" and its fields and values
--
-- Gives what was done and which version was remembered before:
--   newer     nothing, since something newer is shown
--   same      nothing, since it is shown just so
--   shown     the key shows another version than before
--   repaired  the key shows the version that it was said to show

local remembered = redis.pcall('GET', KEYS[2])
if type(remembered) ~= 'string' then
    remembered = ''
end
local before, version, life = tonumber(remembered), tonumber(ARGV[1]), tonumber(ARGV[2])
local text = ARGV[5] == 'text'
local fields = #ARGV - 5

-- Whether the key is as it is to be. A wrong type makes a table of an error, which equals nothing.
local function is_right()
    local left = redis.call('PTTL', KEYS[1])
    if life == 0 or fields == 0 then
        return left == -2
    end
    if left < 0 or math.abs(left - life) > 2000 then
        return false
    end
    if text then
        return redis.pcall('GET', KEYS[1]) == ARGV[6]
    end
    if redis.pcall('HLEN', KEYS[1]) ~= fields / 2 then
        return false
    end
    for at = 6, #ARGV, 2 do
        if redis.pcall('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then
            return false
        end
    end
    return true
end

if before and before > version and remembered ~= ARGV[4] then
    return { 'newer', remembered }
end
local again = before == version
if again and is_right() then
    return { 'same', remembered }
end
redis.call('DEL', KEYS[1])
if life > 0 and fields > 0 then
    if text then
        redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[2])
    else
        redis.call('HSET', KEYS[1], unpack(ARGV, 6))
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return { again and 'repaired' or 'shown', remembered }
