-- Charges every GPU job its power as a Slurm licence, so that the licence's total is a power budget that holds whether
-- the optimizer runs or not. Put it beside slurm.conf and set there:
--   JobSubmitPlugins=lua
--   Licenses=kw:60000                      the budget less the idle power of all nodes, in units of UNIT_W
--   SchedulerParameters=...,bf_licenses
-- Where resources.yaml beside slurm.conf defines the licence as a hierarchical resource (Slurm 25.11 and later, written
-- by `powerhall-optimizer schedule`), leave it out of Licenses: a job then charges each of its nodes, with the most that
-- it may get on one.
-- Users cannot go below the charge: at submission it is added or raised, their later changes are charged anew, and no
-- change of theirs lowers it.
--
-- What is charged is the most that Slurm may allocate for a request:
--   --exclusive and partitions of whole nodes: every GPU of every node;
--   GPUs per node or socket with -n and no -N: as many nodes as the tasks fill, by CPUs, memory per CPU and tasks per
--     node, socket or core, on the smallest nodes of the partition; the job's highest node count is set to that;
--   a range of nodes (-N 2-4): the highest;
--   shards, MPS, MIG instances: the GPUs that they fill, rounded up, since what shares a GPU may use all of it and may be
--     the last one there; where Slurm spreads the shards of a job (MULTIPLE_SHARING_GRES_PJ), a GPU for each;
--   whatever can run on PREPAID nodes alone: nothing.
-- Sizes of nodes are read from slurm.conf.

local LICENCE = "kw"
local UNIT_W = 1000
-- Power per GPU in W at the fastest mode, its share of the node included. "default" is for types not listed.
local GPU_POWER_W = { h200 = 1275, default = 1275 }
-- Idle power per GPU in W that the hierarchical resource has already taken off; 0 charges it twice, which is safe.
local IDLE_GPU_W = 0
-- Budget in units: a job that needs more is refused with an explanation. 0: leave that to Slurm.
local BUDGET = 0
-- New jobs wait this long before they may start, so that the next round can place them first. 0: at once.
local GRACE_S = 0
-- Users who may change the licence of a job: root and the optimizer's user.
local OPERATORS = { [0] = true }
-- A node where slurm.conf does not say: GPUs, sockets, CPUs, shards and MIG slices per GPU.
local NODE = { gpus = 8, sockets = 2, cpus = 1, shards_per_gpu = 1, slices_per_gpu = 7 }
-- Nodes, such as "gn[07-08]", whose full power is taken off Licences, not only their idle power: made for many small
-- parts of GPUs, whose jobs then pay for no GPU that another has opened. The optimizer needs the same list (`prepaid`).
local PREPAID = ""
-- Command that gives back jobs that wait for nodes of an old plan; run in the background at submissions, at most once in
-- WITHDRAW_S. "" runs none. For example "/usr/bin/powerhall-optimizer schedule --scheduler slurm --withdraw".
local WITHDRAW = ""
local WITHDRAW_S = 60
local SLURM_CONF = os.getenv("SLURM_CONF") or "/etc/slurm/slurm.conf"

local NO_VAL = 4294967294
local NO_VAL16 = 65534

local function is_set(value)
  return value ~= nil and value ~= NO_VAL and value ~= NO_VAL16 and value ~= NO_VAL16 + 1
end

local function number(value, fallback)
  if type(value) == "number" and is_set(value) and value < NO_VAL and value > 0 then
    return value
  end
  return fallback
end

-- The names of a host list such as gn[01-04,07],login1.
local function hosts(text)
  local names = {}
  local function add(prefix, rest)
    local before, inside, after = string.match(rest, "^([^%[]*)%[([^%]]*)%](.*)$")
    if before == nil then
      names[#names + 1] = prefix .. rest
      return
    end
    for low, high in string.gmatch(inside, "(%d+)%-?(%d*)") do
      for i = tonumber(low), tonumber(high ~= "" and high or low) do
        if #names > 100000 then return end
        add(prefix .. before .. string.format("%0" .. #low .. "d", i), after)
      end
    end
  end
  text = string.gsub(text, "%b[]", function(inside) return (string.gsub(inside, ",", ";")) end)
  for part in string.gmatch(text, "[^,%s]+") do add("", part) end
  return names
end

-- Name, kind and count of one item of a GRES or TRES text: gres:gpu:h200:8, gres/gpu=8, gpu:4090:8, shard:4, mps.
local function item_of(item)
  local text = string.gsub(string.gsub(item, "%(.*$", ""), "^gres[:/]", "")
  local head, count, kilo = string.match(text, "^(.-)[:=](%d+)([kK]?)$")
  local name, kind = string.match(head or text, "^(%a+)[:/]?(.*)$")
  return name, (kind ~= "" and kind or nil), tonumber(count or "1") * (kilo and kilo ~= "" and 1024 or 1)
end

-- Instances of a MIG profile that one GPU has: 7 of 1g.10gb, 2 of 3g.40gb, 1 of 7g.80gb; nil of what is none.
local function per_gpu(kind)
  local slices = string.match(kind or "", "(%d)g%.%d+gb")
  return slices and math.max(1, math.floor(NODE.slices_per_gpu / math.max(1, tonumber(slices))))
end

local function lower_pairs(line)
  local pairs_of = {}
  for key, value in string.gmatch(line, "([%w_]+)%s*=%s*(%S+)") do
    pairs_of[string.lower(key)] = (string.gsub(value, '"', ""))
  end
  return pairs_of
end

-- Reads nodes and partitions of slurm.conf and what it includes.
local function read_lines(path, depth, lines)
  local file = depth < 5 and io.open(path, "r") or nil
  if file == nil then return end
  local before = ""
  for line in file:lines() do
    line = before .. string.gsub(line, "#.*$", "")
    before = string.match(line, "^(.*)\\%s*$") or ""
    if before == "" then
      local other = string.match(line, "^%s*[Ii]nclude%s+(%S+)")
      if other ~= nil then
        read_lines(string.match(other, "^/") and other or (string.match(path, "^(.*/)") or "") .. other, depth + 1, lines)
      else
        lines[#lines + 1] = line
      end
    end
  end
  file:close()
end

local function node_of(fields, base)
  local node = {}
  for key, value in pairs(base) do node[key] = value end
  local sockets = tonumber(fields.sockets)
    or (tonumber(fields.socketsperboard) and tonumber(fields.socketsperboard) * (tonumber(fields.boards) or 1))
  node.sockets = sockets or node.sockets
  local cores = tonumber(fields.corespersocket)
  node.threads = tonumber(fields.threadspercore) or node.threads
  node.cpus = tonumber(fields.cpus) or (cores and cores * (sockets or 1) * node.threads) or node.cpus
  local taken = math.max((tonumber(fields.corespeccount) or 0) * node.threads, #hosts("[" .. (fields.cpuspeclist or "") .. "]"))
  node.cpus = math.max(1, node.cpus - taken)
  node.mem = math.max(1, (tonumber(fields.realmemory) or node.mem) - (tonumber(fields.memspeclimit) or 0))
  if fields.gres ~= nil then
    node.gpus, node.shards, node.kinds, node.parts = 0, 0, {}, {}
    local split = 0
    for item in string.gmatch(fields.gres, "[^,]+") do
      local name, kind, count = item_of(item)
      if name == "gpu" and per_gpu(kind) then
        split, node.parts.mig = split + math.ceil(count / per_gpu(kind)), true
      elseif name == "gpu" then
        node.gpus = node.gpus + count
        node.kinds[kind or "default"] = true
      elseif name == "shard" or name == "mps" then
        node.parts[name] = true
        node.shards = node.shards + (name == "shard" and count or 0)
      end
    end
    node.gpus = node.gpus + split
  end
  return node
end

-- A line of a partition: its nodes, whether they are given as a whole, CPUs of each node at most.
local function part_of(fields, base)
  local oversubscribe, whole = fields.oversubscribe or fields.shared, base.whole
  if oversubscribe ~= nil then whole = string.match(string.upper(oversubscribe), "^EXCLUSIVE") ~= nil end
  return { nodes = fields.nodes or base.nodes, whole = whole, cpus = tonumber(fields.maxcpuspernode) or base.cpus }
end

-- Whether the licence is a hierarchical resource, whose charge counts per node.
local function is_tree()
  local file = io.open((string.match(SLURM_CONF, "^(.*/)") or "") .. "resources.yaml", "r")
  local text = file and "\n" .. file:read("*a") or ""
  if file ~= nil then file:close() end
  for name in string.gmatch(text, "\n%s*%-%s*resource:%s*[\"']?([^%s\"'#]+)") do
    if name == LICENCE then return true end
  end
  return false
end

local cluster = nil
-- Nodes and partitions, read again at most every minute.
local function read_cluster()
  if cluster ~= nil and os.time() - cluster.read_s < 60 then return cluster end
  local found = { nodes = {}, partitions = {}, prepaid = {}, linear = false, tree = is_tree(), read_s = os.time() }
  local lines, every = {}, { whole = false }
  local base = { gpus = 0, shards = 0, kinds = {}, parts = {}, sockets = 1, cpus = 1, threads = 1, mem = math.huge }
  read_lines(SLURM_CONF, 0, lines)
  for _, line in ipairs(lines) do
    local fields = lower_pairs(line)
    if fields.nodename == "DEFAULT" then
      base = node_of(fields, base)
    elseif fields.nodename ~= nil then
      local node = node_of(fields, base)
      for _, name in ipairs(hosts(fields.nodename)) do found.nodes[name] = node end
    elseif fields.partitionname == "DEFAULT" then
      every = part_of(fields, every)
    elseif fields.partitionname ~= nil then
      found.partitions[fields.partitionname] = part_of(fields, every)
      if string.upper(fields.default or "") == "YES" then found.default = fields.partitionname end
    end
    found.linear = found.linear or string.match(fields.selecttype or "", "linear") ~= nil
    found.spread = found.spread or string.match(fields.selecttypeparameters or "", "MULTIPLE_SHARING_GRES_PJ") ~= nil
  end
  for _, name in ipairs(hosts(PREPAID)) do found.prepaid[name] = true end
  cluster = found
  return found
end

-- What slurmctld tells of the partitions that a user may use: scontrol may have changed them since slurm.conf was read.
local told = {}

-- The nodes of a job's partitions; all where these are not known. The second value: whether they are given as a whole;
-- the third: the CPUs that a job gets of a node at most.
local function nodes_of(partition)
  local known, nodes = read_cluster(), {}
  local whole, all, cpus = known.linear, false, math.huge
  for name in string.gmatch(partition or known.default or "", "[^,]+") do
    local part, now = known.partitions[name], told[name]
    if now ~= nil then
      whole, cpus = whole or now.max_share == 0, math.min(cpus, number(now.max_cpus_per_node, cpus))
    end
    if part ~= nil and part.nodes ~= nil then
      whole, all = whole or part.whole, all or string.upper(part.nodes) == "ALL"
      cpus = math.min(cpus, part.cpus or cpus)
      for _, host in ipairs(hosts(part.nodes)) do
        nodes[host], all = known.nodes[host], all or known.nodes[host] == nil  -- a node set may be any of them
      end
    end
  end
  return (all or next(nodes) == nil) and known.nodes or nodes, whole, cpus
end

-- The extremes of the nodes that a job may get and has to pay for: GPUs, sockets, smallest CPUs, parts per GPU, types.
local function limits_of(partition)
  local known = read_cluster()
  local nodes, whole, cpus = nodes_of(partition)
  local sizes = { gpus = 0, sockets = 0, kinds = {}, parts = {}, threads = 1, mem = math.huge, whole = whole }
  sizes.tree, sizes.spread = known.tree, known.spread
  for name, node in pairs(nodes) do
    if known.prepaid[name] then
      sizes.prepaid = true
    elseif node.gpus > 0 then
      sizes.gpus, sizes.sockets = math.max(sizes.gpus, node.gpus), math.max(sizes.sockets, node.sockets)
      sizes.cpus, sizes.mem = math.min(sizes.cpus or cpus, node.cpus), math.min(sizes.mem, node.mem)
      sizes.threads = math.max(sizes.threads, node.threads)
      if node.shards > 0 then
        local each = math.max(1, math.floor(node.shards / node.gpus))
        sizes.shards_per_gpu = math.min(sizes.shards_per_gpu or each, each)
      end
      for kind in pairs(node.kinds) do sizes.kinds[kind] = true end
      for part in pairs(node.parts) do sizes.parts[part] = true end
    end
  end
  sizes.has_gpus = sizes.gpus > 0 or next(known.nodes) == nil
  for key, value in pairs(NODE) do
    if sizes[key] == nil or sizes[key] == 0 then sizes[key] = value end
  end
  return sizes
end

-- The most W of one GPU of a type, of any of the partition's where no type is named; in a tree above its idle power.
local function gpu_w(kind, sizes)
  local most = 0
  if kind ~= nil and kind ~= "default" then
    most = GPU_POWER_W[kind] or GPU_POWER_W.default
  else
    for each in pairs(sizes.kinds) do most = math.max(most, GPU_POWER_W[each] or GPU_POWER_W.default) end
    most = most > 0 and most or GPU_POWER_W.default
  end
  return sizes.tree and math.max(0, most - IDLE_GPU_W) or most
end

-- The GPUs that one item of a request may open.
local function gpus_of(name, kind, count, sizes)
  local part = (name == "gpu" and per_gpu(kind) and "mig") or (name ~= "gpu" and name) or nil
  if part ~= nil and sizes.prepaid and not sizes.parts[part] then
    return 0  -- only nodes that are paid for have such parts
  elseif part == "mig" then
    return math.ceil(count / per_gpu(kind))
  elseif part == "shard" then
    return sizes.spread and math.min(count, sizes.gpus) or math.ceil(count / sizes.shards_per_gpu)
  elseif part == "mps" then
    return sizes.spread and math.min(count, sizes.gpus) or math.ceil(count / 100)
  end
  return part == nil and count or 0
end

-- Power in W of a request that is granted `times` times, and its named GPU type. Parts count as whole GPUs each time.
local function tres_power_w(text, times, sizes)
  local power_w, named = 0, nil
  for item in string.gmatch(text or "", "[^,]+") do
    local name, kind, count = item_of(item)
    if name == "gpu" and not per_gpu(kind) then named = kind or named end
    power_w = power_w + gpus_of(name, kind, count, sizes) * gpu_w(per_gpu(kind) == nil and kind or nil, sizes)
  end
  return power_w * times, named
end

-- Units that a job needs, the highest number of nodes to set (nil: leave it), and on how many nodes each charges the
-- units (1 for a flat licence); desc overrides rec field by field.
local function needed_units(desc, rec)
  local function field(name)
    return (is_set(desc[name]) or rec == nil) and desc[name] or (rec and rec[name])
  end
  local sizes = limits_of(field("partition"))
  if sizes.prepaid and not sizes.has_gpus then return 0, nil, 1 end
  local least, most = number(field("min_nodes"), 1), number(field("max_nodes"), nil)
  local asked = field("req_nodes")
  if asked ~= nil and asked ~= "" then
    least = math.max(least, #hosts(asked))
  end
  local tasks, per_node = number(field("num_tasks"), rec and number(rec.min_cpus, nil)), number(field("ntasks_per_node"), nil)
  local total_tasks = tasks or least * (per_node or 1)
  local nodes, set_most = math.max(least, most or 0), nil
  local per_job_w = tres_power_w(field("tres_per_job"), 1, sizes)
  if most == nil then
    local threads = math.min(number(field("threads_per_core"), sizes.threads), number(field("ntasks_per_core"), sizes.threads))
    local cpus = math.max(total_tasks * number(field("cpus_per_task"), 1), number(field("min_cpus"), 1))
    cpus = cpus * math.max(1, sizes.threads / threads)
    local room = math.min(per_node or total_tasks, number(field("ntasks_per_socket"), total_tasks) * sizes.sockets)
    local memory = number(field("min_mem_per_cpu"), 0) * cpus / sizes.mem
    local fill = math.ceil(math.max(total_tasks / room, per_node and 0 or cpus / sizes.cpus, memory))
    local gpus = per_job_w > 0 and math.ceil(per_job_w / gpu_w(nil, sizes) / sizes.gpus) or 1
    nodes = math.max(nodes, math.min(fill, math.max(total_tasks, least)), gpus)
    set_most = nodes
  end
  local sockets = math.max(number(field("sockets_per_node"), 1), sizes.sockets)  -- Slurm takes that as the least
  local node_w, node_kind = tres_power_w(field("tres_per_node"), 1, sizes)
  local socket_w, socket_kind = tres_power_w(field("tres_per_socket"), sockets, sizes)
  local task_w, task_kind = tres_power_w(field("tres_per_task"), total_tasks, sizes)
  local power_w = math.max(per_job_w, node_w * nodes, socket_w * nodes, task_w)
  local tasks_per_gpu = number(field("ntasks_per_tres"), nil)
  if tasks_per_gpu ~= nil and tasks ~= nil then
    power_w = math.max(power_w, math.ceil(tasks / tasks_per_gpu) * gpu_w(nil, sizes))
  end
  -- Where slurm.conf has no GPUs there, as of dynamic nodes, what is asked for tells them.
  local is_whole = (sizes.whole or field("shared") == 0) and (sizes.has_gpus or power_w > 0)
  if is_whole then
    local kind = node_kind or socket_kind or task_kind
    power_w = math.max(power_w, nodes * sizes.gpus * gpu_w(kind, sizes))
  elseif power_w == 0 or (node_w == 0 and socket_w == 0) then
    set_most = nil  -- more nodes are no more GPUs
  end
  if sizes.tree then
    -- Each node of the job charges the most that one node may give it.
    local full_w = sizes.gpus * gpu_w(nil, sizes)
    local one_w = math.max(node_w, socket_w, math.min(math.max(per_job_w, task_w), full_w))
    if is_whole or (tasks_per_gpu ~= nil and power_w > 0) then
      one_w = math.max(one_w, math.min(power_w, full_w))
    end
    local units = math.ceil(one_w / UNIT_W)
    return units, nil, math.max(1, math.min(nodes, math.ceil(power_w / UNIT_W / math.max(1, units))))
  end
  return math.ceil(power_w / UNIT_W), set_most, 1
end

-- Returns the licences text with at least this many units of ours, and how many it has now.
local function charged(text, units)
  local parts, has = {}, 0
  for item in string.gmatch(text or "", "[^,]+") do
    local name, count = string.match(item, "^([^:=]+)[:=]?(%d*)$")
    if name == LICENCE then has = math.max(has, tonumber(count) or 1) else parts[#parts + 1] = item end
  end
  local final = math.max(has, units)
  if final > 0 then parts[#parts + 1] = LICENCE .. ":" .. final end
  return table.concat(parts, ","), final
end

-- What a job is charged now, for as many nodes as it asks for after a change: a record does not say all that it asked.
local function kept_units(desc, rec)
  local _, now = charged(rec.licenses, 0)
  if read_cluster().tree then return now end
  local nodes = math.max(number(rec.max_nodes, 1), number(rec.min_nodes, 1))
  local asked = math.max(number(desc.max_nodes, 0), number(desc.min_nodes, 0))
  return math.ceil(now * math.max(1, asked / nodes))
end

local function refuse_over_budget(units)
  if BUDGET == 0 or units <= BUDGET then return false end
  slurm.log_user("powerhall: this job needs %d %s, the budget is %d %s: ask for fewer GPUs", units, LICENCE, BUDGET, LICENCE)
  return true
end

local withdrawn_s = 0
local function withdraw_old_pins()
  if WITHDRAW ~= "" and os.time() - withdrawn_s >= WITHDRAW_S then
    withdrawn_s = os.time()
    os.execute("(" .. WITHDRAW .. ") >/dev/null 2>&1 </dev/null &")
  end
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  withdraw_old_pins()
  told = part_list or {}
  local units, set_most, times = needed_units(job_desc, nil)
  local text, final = charged(job_desc.licenses, units)
  if refuse_over_budget(final * times) then return slurm.ERROR end
  if final > 0 then
    job_desc.licenses = text
    if set_most ~= nil then job_desc.max_nodes = set_most end
    if GRACE_S > 0 and not OPERATORS[submit_uid] then
      job_desc.begin_time = math.max(job_desc.begin_time or 0, os.time() + GRACE_S)
    end
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  if OPERATORS[modify_uid] then return slurm.SUCCESS end
  local is_charged_anew = false
  for _, name in ipairs({ "licenses", "min_nodes", "max_nodes", "num_tasks", "tres_per_job", "tres_per_node",
    "tres_per_task", "tres_per_socket", "shared", "req_nodes", "partition", "cpus_per_task", "min_cpus",
    "ntasks_per_node", "sockets_per_node" }) do
    is_charged_anew = is_charged_anew or is_set(job_desc[name])
  end
  if not is_charged_anew then return slurm.SUCCESS end
  told = part_list or {}
  local units, _, times = needed_units(job_desc, job_rec)
  units = math.max(units, kept_units(job_desc, job_rec))
  local text, final = charged(job_desc.licenses or job_rec.licenses, units)
  if refuse_over_budget(final * times) then return slurm.ERROR end
  job_desc.licenses = text
  return slurm.SUCCESS
end

return slurm.SUCCESS
