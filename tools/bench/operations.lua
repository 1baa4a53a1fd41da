-- What wrk asks for, one operation at a time: wrk -s operations.lua … URL -- OPERATION RUN TOKEN ORDER PRODUCTS EMAILS PASSWORD
-- RUN is in every idempotency key, PRODUCTS and EMAILS are lists with commas. checkout.py calls it.

local operations, placed, count = {}, {}, 0
local run, order, password
local products, emails = {}, {}
local headers = { ["content-type"] = "application/json" }

local function list(text, into)
  for part in text:gmatch("[^,]+") do into[#into + 1] = part end
end

local function post(path, body)
  count = count + 1
  -- Where nobody is logged in there is no operation with a key, and one that has none refuses it.
  if headers["authorization"] then headers["idempotency-key"] = run .. "-" .. count end
  return wrk.format("POST", path, headers, body)
end

local function get(path)
  return wrk.format("GET", path, headers)
end

operations["order read"] = function() return get("/v1/orders/" .. order) end
operations["order list"] = function() return get("/v1/orders?limit=20") end
operations["product list"] = function() return get("/v1/products?limit=20") end
operations["profile"] = function() return get("/v1/me") end

operations["login"] = function()
  local email = emails[count % #emails + 1]
  return post("/v1/auth/login", '{"email":"' .. email .. '","password":"' .. password .. '"}')
end

operations["order create"] = function()
  local product = products[math.random(#products)]
  return post("/v1/orders", '{"items":[{"product_id":"' .. product .. '","quantity":1}]}')
end

operations["order create and pay"] = function()
  local id = table.remove(placed)
  if id == nil then return operations["order create"]() end
  return post("/v1/orders/" .. id .. "/payment", '{"payment_token":"tok_approved"}')
end

local function remember(_, _, body)
  local id = body:match('"id":"([^"]+)"')
  if id and body:find('"pending_payment"', 1, true) then placed[#placed + 1] = id end
end

function init(arguments)
  local operation, token = arguments[1], arguments[3]
  run, order, password = arguments[2], arguments[4], arguments[7]
  list(arguments[5], products)
  list(arguments[6], emails)
  if operation ~= "login" and operation ~= "product list" then headers["authorization"] = "Bearer " .. token end
  -- wrk keeps the answers' bodies as soon as there is a function for them.
  if operation == "order create and pay" then response = remember end
  request = operations[operation]
end
