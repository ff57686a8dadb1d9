-- wrk with the tiles of a list, as one user or as many.
--
--   tilekeep urls --tileset world --format wrk --limit 20000 > urls.txt
--   TILEKEEP_TOKEN=… wrk -t2 -c64 -d30s -s benches/load/wrk.lua http://127.0.0.1:8080 -- urls.txt
--
-- A second file, with a token a line, makes many users instead of TILEKEEP_TOKEN's one.
-- wrk is a hammer: it asks again as soon as it is answered, and has no cache and no pauses. For what people
-- with maps would see, use `tilekeep loadtest`. Load only servers that are yours.

local started = 0

function setup(thread)
  thread:set("number", started)
  started = started + 1
end

local function fail(text)
  io.stderr:write("wrk.lua: ", text, "\n")
  os.exit(2)
end

local function lines(file)
  local handle = io.open(file)
  if not handle then fail(file .. " cannot be read") end
  local found = {}
  for line in handle:lines() do
    if line ~= "" and line:sub(1, 1) ~= "#" then found[#found + 1] = line end
  end
  handle:close()
  if #found == 0 then fail(file .. " is empty") end
  return found
end

local paths, tokens, at

function init(args)
  if not args[1] then fail("name a list behind `--`: wrk -s wrk.lua URL -- urls.txt [tokens.txt]") end
  paths = lines(args[1])
  tokens = args[2] and lines(args[2]) or { os.getenv("TILEKEEP_TOKEN") }
  -- Threads begin at places far from each other.
  at = math.floor(#paths * (number * 0.618 % 1))
end

function request()
  at = at % #paths + 1
  local headers = { ["Accept-Encoding"] = "gzip, br" }
  if #tokens > 0 then
    headers["Authorization"] = "Bearer " .. tokens[(at - 1) % #tokens + 1]
  end
  return wrk.format("GET", paths[at], headers)
end

function done(summary, latency)
  local e = summary.errors
  local ms = function(percentile) return latency:percentile(percentile) / 1000 end
  io.write(string.format(
    "requests %d (%.0f/s)  p50 %.2f ms  p90 %.2f ms  p99 %.2f ms  statuses of 400 and above %d  network errors %d\n",
    summary.requests, summary.requests / (summary.duration / 1e6), ms(50), ms(90), ms(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
