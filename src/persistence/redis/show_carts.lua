-- Shows carts as the database has them, each unless something newer of it is shown already. For one server, which has
-- all keys; a cluster is written key by key (show.lua).
--
-- KEYS  three of each cart: its hash; its session, which has its version; and what remembers the version when it has ended
-- ARGV  of each cart, one after the other:
--       1 the version
--       2 for how many milliseconds it lives; 0: it has ended
--       3 for how many milliseconds the version of one that has ended is remembered
--       4 a version shown that is known to be wrong, or nothing
--       5 how many fields and values follow
--       6 and on: the fields and values of the hash
--
-- Gives of each cart what was done and which version was shown or remembered before:
--   newer     nothing, since something newer is shown
--   same      nothing, since it is shown just so
--   shown     another version is shown than before
--   repaired  it was not shown as its version was said to be

local call, pcall = redis.call, redis.pcall

-- Whether a key ends when it is to end.
local function lives(key, life)
    local left = call('PTTL', key)
    return left >= 0 and math.abs(left - life) <= 2000
end

-- Whether a cart is as it is to be. A wrong type makes a table of an error, which equals nothing.
local function is_right(hash, session, version, life, first, last)
    if life == 0 then
        return call('EXISTS', hash, session) == 0
    end
    if pcall('GET', session) ~= version or not lives(session, life) then
        return false
    end
    if last < first then
        return call('EXISTS', hash) == 0
    end
    if not lives(hash, life) or pcall('HLEN', hash) ~= (last - first + 1) / 2 then
        return false
    end
    for at = first, last, 2 do
        if pcall('HGET', hash, ARGV[at]) ~= ARGV[at + 1] then
            return false
        end
    end
    return true
end

local function show(hash, session, ended, at)
    local version, life, wrong = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 3]
    local first, last = at + 5, at + 4 + tonumber(ARGV[at + 4])
    -- A wrong type is nothing to it.
    local versions = call('MGET', session, ended)
    local shown = versions[1] or versions[2] or ''
    local before = tonumber(shown)
    if before and before > tonumber(version) and shown ~= wrong then
        return last + 1, { 'newer', shown }
    end
    local again = before == tonumber(version)
    if again and is_right(hash, session, version, life, first, last) then
        return last + 1, { 'same', shown }
    end
    if life == 0 then
        call('DEL', hash, session)
        call('SET', ended, version, 'PX', ARGV[at + 2])
    else
        call('DEL', hash)
        if last >= first then
            call('HSET', hash, unpack(ARGV, first, last))
            call('PEXPIRE', hash, ARGV[at + 1])
        end
        call('SET', session, version, 'PX', ARGV[at + 1])
    end
    return last + 1, { again and 'repaired' or 'shown', shown }
end

local at, outcomes = 1, {}
for number = 1, #KEYS, 3 do
    at, outcomes[#outcomes + 1] = show(KEYS[number], KEYS[number + 1], KEYS[number + 2], at)
end
return outcomes
