-- Shows carts as the database has them, each unless something newer of it is shown already. For one server, which has
-- all keys; a cluster is written key by key (show.lua).
--
-- KEYS  three of each cart: its hash; its session, which has its version; and what remembers the version when it has ended
-- ARGV  1 for how many milliseconds the version of one that has ended is remembered
--       2 a version shown that is known to be wrong, or nothing
--       then of each cart, one after the other:
--       1 the version
--       2 for how many milliseconds it lives; 0: its time is over, a newer version may live; -1: it has ended for ever
--       3 how many fields and values follow
--       4 and on: the fields and values of the hash
--
-- Every cart is shown in another version than before, but for those of which it gives the number, from 1, what was done
-- and which version was shown or remembered before:
--   newer     nothing, since something newer is shown
--   same      nothing, since it is shown just so
--   repaired  it was not shown as its version was said to be

local call, pcall = redis.call, redis.pcall
local remembered_for, wrong = ARGV[1], ARGV[2]

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
    local version, life = ARGV[at], ARGV[at + 1]
    local first, last = at + 3, at + 2 + ARGV[at + 2]
    if life == '-1' then
        -- Nothing is newer than that.
        if call('SET', ended, version, 'PX', remembered_for, 'NX') then
            call('DEL', hash, session)
            return last + 1
        end
        life = '0'
    end
    -- Most are shown for the first time, where nothing is.
    if version == '1' and life ~= '0' and call('EXISTS', hash, ended) == 0
        and call('SET', session, version, 'PX', life, 'NX') then
        if last >= first then
            call('HSET', hash, unpack(ARGV, first, last))
            call('PEXPIRE', hash, life)
        end
        return last + 1
    end
    -- A wrong type is nothing to it.
    local versions = call('MGET', session, ended)
    local shown = versions[1] or versions[2] or ''
    local before = tonumber(shown)
    if before and before > tonumber(version) and shown ~= wrong then
        return last + 1, 'newer', shown
    end
    local again = before == tonumber(version)
    if again and is_right(hash, session, version, tonumber(life), first, last) then
        return last + 1, 'same', shown
    end
    if life == '0' then
        call('DEL', hash, session)
        call('SET', ended, version, 'PX', remembered_for)
    else
        call('DEL', hash)
        if last >= first then
            call('HSET', hash, unpack(ARGV, first, last))
            call('PEXPIRE', hash, life)
        end
        call('SET', session, version, 'PX', life)
    end
    return last + 1, again and 'repaired' or nil, shown
end

local at, others = 3, {}
for number = 1, #KEYS, 3 do
    local done, before
    at, done, before = show(KEYS[number], KEYS[number + 1], KEYS[number + 2], at)
    if done then
        others[#others + 1] = { (number + 2) / 3, done, before }
    end
end
return others
