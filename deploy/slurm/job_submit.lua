-- Charges every GPU job its power as a Slurm licence, so that the licence's total is a power budget that holds whether
-- the optimizer runs or not. Put it beside slurm.conf and set there:
--   JobSubmitPlugins=lua
--   Licenses=kw:60000                      the budget in units of UNIT_W
--   SchedulerParameters=...,bf_licenses
-- Users cannot go below the charge: at submission it is added or raised, and their later changes are charged anew.

local LICENCE = "kw"
local UNIT_W = 1000
-- Power per GPU in W at the fastest mode, its share of the node included. "default" is for types not listed.
local GPU_POWER_W = { h200 = 1275, default = 1275 }
-- Budget in units: a job that needs more is refused with an explanation. 0: leave that to Slurm.
local BUDGET = 0
-- New jobs wait this long before they may start, so that the next round can place them first. 0: at once.
local GRACE_S = 0
-- Users who may change the licence of a job: root and the optimizer's user.
local OPERATORS = { [0] = true }

local NO_VAL = 4294967294
local NO_VAL16 = 65534

local function number(value, fallback)
  if value == nil or value == NO_VAL or value == NO_VAL16 or value == NO_VAL + 1 or value == 0 then
    return fallback
  end
  return value
end

-- Power in W of one TRES text: gres:gpu:8, gres:gpu:h200:8, gres/gpu:8, gres/gpu=8, several separated by commas.
local function tres_power_w(text)
  local power_w = 0
  for item in string.gmatch(text or "", "[^,]+") do
    local rest = string.match(item, "^gres[:/]gpu(.*)$") or string.match(item, "^gpu(.*)$")
    if rest ~= nil and (rest == "" or string.match(rest, "^[:=]")) then
      local kind = string.match(rest, "^[:=]([%a_][%w_.-]*)")
      local count = tonumber(string.match(rest, "[:=](%d+)$") or "1")
      power_w = power_w + count * (GPU_POWER_W[kind or "default"] or GPU_POWER_W.default)
    end
  end
  return power_w
end

-- Units that a job needs; desc overrides rec (nil at submission) field by field.
local function needed_units(desc, rec)
  local function field(name)
    local value = desc[name]
    if (value == nil or value == NO_VAL or value == NO_VAL16) and rec ~= nil then
      value = rec[name]
    end
    return value
  end
  local nodes = number(field("max_nodes"), number(field("min_nodes"), 1))
  nodes = math.max(nodes, number(field("min_nodes"), 1))
  local tasks = number(desc.num_tasks, nil) or number(rec and rec.num_tasks, nil)
  if tasks == nil then
    tasks = nodes * number(desc.ntasks_per_node, 1)
  end
  local sockets = number(desc.sockets_per_node, 1)
  local power_w = math.max(
    tres_power_w(field("tres_per_job")),
    tres_power_w(field("tres_per_node")) * nodes,
    tres_power_w(field("tres_per_task")) * tasks,
    tres_power_w(field("tres_per_socket")) * sockets * nodes
  )
  return math.ceil(power_w / UNIT_W)
end

-- Returns the licences text with at least this many units of ours, and how many it has now.
local function charged(text, units)
  local parts, has = {}, 0
  for item in string.gmatch(text or "", "[^,]+") do
    local name, count = string.match(item, "^([^:=]+)[:=]?(%d*)$")
    if name == LICENCE then
      has = math.max(has, tonumber(count) or 1)
    else
      parts[#parts + 1] = item
    end
  end
  local final = math.max(has, units)
  if final > 0 then
    parts[#parts + 1] = LICENCE .. ":" .. final
  end
  return table.concat(parts, ","), final
end

local function refuse_over_budget(units)
  if BUDGET > 0 and units > BUDGET then
    slurm.log_user("powerhall: this job needs %d %s, the budget is %d %s: ask for fewer GPUs", units, LICENCE, BUDGET, LICENCE)
    return true
  end
  return false
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  local units = needed_units(job_desc, nil)
  local text, final = charged(job_desc.licenses, units)
  if refuse_over_budget(final) then
    return slurm.ERROR
  end
  if final > 0 then
    job_desc.licenses = text
    if GRACE_S > 0 and not OPERATORS[submit_uid] then
      job_desc.begin_time = math.max(job_desc.begin_time or 0, os.time() + GRACE_S)
    end
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  if OPERATORS[modify_uid] then
    return slurm.SUCCESS
  end
  local function given(name)
    local value = job_desc[name]
    return value ~= nil and value ~= NO_VAL and value ~= NO_VAL16
  end
  local is_charged_anew = false
  for _, name in ipairs({ "licenses", "min_nodes", "max_nodes", "num_tasks", "tres_per_job", "tres_per_node",
    "tres_per_task", "tres_per_socket" }) do
    is_charged_anew = is_charged_anew or given(name)
  end
  if not is_charged_anew then
    return slurm.SUCCESS
  end
  local units = needed_units(job_desc, job_rec)
  local asked = job_desc.licenses
  if asked == nil then
    asked = job_rec.licenses
  end
  local text, final = charged(asked, units)
  if refuse_over_budget(final) then
    return slurm.ERROR
  end
  job_desc.licenses = text
  return slurm.SUCCESS
end

return slurm.SUCCESS
