-- Sends the bodies of a file in turn, one per line. Arguments: the file and, if needed, an API key.
local requests, turn = {}, 0

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  if arguments[2] then wrk.headers["Authorization"] = "Bearer " .. arguments[2] end
  for body in io.lines(arguments[1]) do requests[#requests + 1] = wrk.format(nil, nil, nil, body) end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

-- Times are in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
