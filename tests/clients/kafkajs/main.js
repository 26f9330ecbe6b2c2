// kafkajs against a broker: the scenarios of the client matrix. Usage: node main.js BOOTSTRAP RECORDS-FILE
// (with NODE_PATH, or a node_modules directory beside this file).
'use strict'
const fs = require('fs')
const crypto = require('crypto')
const assert = require('assert')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')

const RETRY = { retries: 7, initialRetryTime: 50, maxRetryTime: 400 }
const ORDERED = 500
const WAIT = 30000
const [bootstrap, recordsFile, holesFile] = process.argv.slice(2)
const prefix = `kafkajs-${crypto.randomBytes(4).toString('hex')}-`
const [PRODUCE, ORDER, TIME, GROUP, COMPACT, GONE, COMMITTED, TXN, SOURCE, SINK, FENCED] =
  ['produce', 'order', 'time', 'group', 'compact', 'gone', 'committed', 'transactions', 'source', 'sink', 'fenced'].map(n => prefix + n)
let failed = false

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.NOTHING, requestTimeout: 10000, retry: RETRY })
const admin = kafka.admin()

async function run(name, scenario) {
  const start = Date.now()
  try {
    console.log(`ok ${name} ${(await scenario()) || ''} ${((Date.now() - start) / 1000).toFixed(2)}s`)
  } catch (error) {
    failed = true
    const at = [...String(error.stack).matchAll(/main\.js:(\d+)/g)].map(m => m[1]).join(' ')
    console.log(`FAIL ${name} ${error.name}: ${error.message} (at ${at})`.replace(/\s+/g, ' ').slice(0, 600))
  }
}

const skip = (name, reason) => console.log(`skip ${name} ${reason}`)
const equal = (actual, expected, what) => {
  try {
    assert.deepStrictEqual(actual, expected)
  } catch {
    const show = v => (JSON.stringify(v) || 'undefined').slice(0, 300)
    throw new Error(`${what}: got ${show(actual)}, expected ${show(expected)}`)
  }
}

async function until(what, attempt) {
  for (const end = Date.now() + WAIT; ; await new Promise(done => setTimeout(done, 20))) {
    const result = await attempt()
    if (result) return result
    if (Date.now() > end) throw new Error(`no ${what()} within ${WAIT} ms`)
  }
}

// Errors of kafkajs hide in their causes.
async function raised(type, call) {
  const seen = []
  try {
    await call()
  } catch (error) {
    for (let e = error; e; e = e.cause || e.originalError || (e.errors && e.errors[0]) || (e.groups && e.groups[0].error)) seen.push(e.type || e.name)
    if (!seen.includes(type)) throw new Error(`error ${seen.join(' < ')}: ${error.message}, expected ${type}`)
    return
  }
  throw new Error(`no error, expected ${type}`)
}

// Bytes are held as latin1 strings, so that records can be compared and printed.
const text = b => (b === null || b === undefined ? null : Buffer.from(b).toString('latin1'))
const bytes = t => (t === null ? null : Buffer.from(t, 'latin1'))
const unescape = f => (f === '-' ? null : f.replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))))

// kafkajs keeps headers in an object, so their order across names is lost: several values of a name are a list.
function headers(pairs) {
  const map = {}
  for (const [name, value] of pairs) map[name] = name in map ? [].concat(map[name], [value]) : value
  return map
}

const RECORDS = fs.readFileSync(recordsFile, 'ascii').trimEnd().split('\n').filter(l => !l.startsWith('#')).map(line => {
  const [timestamp, key, value, repeat, ...rest] = line.split('\t')
  const pairs = rest.map(h => [unescape(h.slice(0, h.indexOf('='))), unescape(h.slice(h.indexOf('=') + 1))])
  const v = unescape(value)
  return { timestamp, key: unescape(key), value: v && v.repeat(repeat), headers: headers(pairs) }
}).filter(r => Object.values(r.headers).every(v => v !== null)) // it cannot send a null header

const ordered = first => Array.from({ length: ORDERED - first }, (_, i) =>
  ({ timestamp: String(first + i + 1), key: null, value: `ordered ${first + i}`, headers: {} }))

const utf8 = name => Buffer.from(name, 'latin1').toString('utf8')
const sent = (r, partition) => ({
  partition, timestamp: r.timestamp, key: bytes(r.key), value: bytes(r.value),
  headers: Object.fromEntries(Object.entries(r.headers).map(([k, v]) => [utf8(k), Array.isArray(v) ? v.map(bytes) : bytes(v)])),
})
const received = m => ({
  timestamp: m.timestamp, key: text(m.key), value: text(m.value),
  headers: Object.fromEntries(Object.entries(m.headers).map(([k, v]) =>
    [Buffer.from(k).toString('latin1'), Array.isArray(v) ? v.map(text) : text(v)])),
})

function checkRecords(got, expected) {
  for (let i = 0; i < Math.min(got.length, expected.length); i++) equal(got[i], expected[i], `record ${i}`)
  equal(got.length, expected.length, 'number of records')
  return `${got.length} records`
}

// One request per entry of `batches`; returns the base offsets. It mixes up concurrent sends of an idempotent producer.
async function produceAll(topic, partition, batches, { idempotent = false, acks = -1, compression = CompressionTypes.None } = {}) {
  const producer = kafka.producer({ idempotent, retry: RETRY })
  await producer.connect()
  try {
    const results = []
    for (const batch of batches) results.push(await producer.send({ topic, acks, compression, messages: batch.map(r => sent(r, partition)) }))
    return results.map(r => r[0] && Number(r[0].baseOffset))
  } finally {
    await producer.disconnect()
  }
}

// All records from `start` to the end, which are `count`; their offsets must follow each other from `first`.
// kafkajs has no assign(): a group of one that seeks.
let readers = 0
async function read(topic, partition, start, first, count, conf = {}) {
  const consumer = kafka.consumer({ groupId: `${prefix}reader-${readers++}`, maxWaitTimeInMs: 50, ...conf })
  const got = []
  let problem = null
  await consumer.connect()
  try {
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition: p, message }) => {
        if (p !== partition) return
        if (Number(message.offset) !== first + got.length) problem = `offset ${message.offset} after ${got.length} records from ${first}`
        got.push(received(message))
      },
    })
    if (start > 0) consumer.seek({ topic, partition, offset: String(start) })
    await until(() => `${count} records, read ${got.length}`, () => problem || got.length >= count)
    if (problem) throw new Error(problem)
    return got
  } finally {
    await consumer.disconnect()
  }
}

const create = (topic, numPartitions, config = {}, replicationFactor = 1) => admin.createTopics({
  topics: [{ topic, numPartitions, replicationFactor, configEntries: Object.entries(config).map(([name, value]) => ({ name, value })) }],
})
const KEEP = { 'retention.ms': '-1' } // the records' timestamps lie years back
const high = async (topic, partition) => Number((await admin.fetchTopicOffsets(topic)).find(p => p.partition === partition).high)

async function createTopics() {
  for (const [topic, n] of [[PRODUCE, 15], [ORDER, 1], [TIME, 1], [GROUP, 4], [GONE, 1]]) equal(await create(topic, n, KEEP), true, 'created')
  await create(COMPACT, 1, { 'cleanup.policy': 'compact' })
  equal(await create(TIME, 1), false, 'created again')
  await raised('INVALID_TOPIC_EXCEPTION', () => create('not/a/name', 1))
  await raised('INVALID_CONFIG', () => create(prefix + 'x', 1, { 'retention.ms': 'soon' }))
  await raised('INVALID_PARTITIONS', () => create(prefix + 'x', 0))
  await raised('INVALID_REPLICATION_FACTOR', () => create(prefix + 'x', 1, {}, 9))
}

async function metadata() {
  const { topics } = await admin.fetchTopicMetadata({ topics: [PRODUCE] })
  equal(topics[0].partitions.map(p => p.partitionId).sort((a, b) => a - b), [...Array(15).keys()], 'partitions')
  equal((await admin.fetchTopicOffsets(PRODUCE)).map(p => p.high), Array(15).fill('0'), 'end offsets')
  await raised('UNKNOWN_TOPIC_OR_PARTITION', () => admin.fetchTopicMetadata({ topics: [prefix + 'none'] }))
  const cluster = await admin.describeCluster()
  return `cluster ${cluster.clusterId}, ${cluster.brokers.length} broker`
}

async function produce(compression, acks, partition) {
  const base = await produceAll(PRODUCE, partition, [RECORDS], { acks, compression })
  if (acks !== 0) equal(base, [0], 'base offset')
  await until(() => 'all records', async () => (await high(PRODUCE, partition)) >= RECORDS.length)
}

// One consumer reads all partitions of the produce scenarios: joining a group for each would take most of the time.
async function readBack() {
  const consumer = kafka.consumer({ groupId: `${prefix}reader`, maxWaitTimeInMs: 50 })
  const got = Array.from({ length: 15 }, () => [])
  await consumer.connect()
  try {
    await consumer.subscribe({ topic: PRODUCE, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ partition, message }) => got[partition].push([Number(message.offset), received(message)]) })
    await until(() => 'all records', () => got.every(g => g.length >= RECORDS.length))
  } finally {
    await consumer.disconnect()
  }
  for (const g of got) {
    equal(g.map(([offset]) => offset), [...RECORDS.keys()], 'offsets')
    checkRecords(g.map(([, r]) => r), RECORDS)
  }
  return `${15 * RECORDS.length} records`
}

async function idempotent() {
  const batches = Array.from({ length: 100 }, (_, i) => ordered(0).slice(5 * i, 5 * i + 5))
  equal(await produceAll(ORDER, 0, batches, { idempotent: true }), batches.map((_, i) => 5 * i), 'base offsets')
  return checkRecords(await read(ORDER, 0, 0, 0, ORDERED), ordered(0))
}

async function smallFetches() {
  return checkRecords(await read(PRODUCE, 0, 0, 0, RECORDS.length, { maxBytesPerPartition: 1000, maxBytes: 1000 }), RECORDS)
}

async function seekTimestamp() {
  await produceAll(TIME, 0, [RECORDS.slice(0, 13)])
  await produceAll(TIME, 0, [RECORDS.slice(13)])
  for (const r of RECORDS) for (const t of [-1, 0, 1].map(d => Number(r.timestamp) + d)) {
    const first = RECORDS.findIndex(other => Number(other.timestamp) >= t)
    const found = (await admin.fetchTopicOffsetsByTimestamp(TIME, t))[0].offset
    equal(Number(found), first < 0 ? RECORDS.length : first, `offset for ${t}`) // it answers the end where there is none
  }
  const start = RECORDS.length - 1
  return checkRecords(await read(TIME, 0, start, start, 1), RECORDS.slice(start))
}

const COMMITS = [true, false, true, true, false, true] // the transactions of a producer: committed or aborted
const transactional = name => kafka.producer({ transactionalId: prefix + name, idempotent: true, maxInFlightRequests: 1, retry: RETRY })
const inTransaction = (number, partition) => [0, 1, 2, 3, 4].map(i => `transaction ${number} partition ${partition} record ${i}`)
const toTransform = partition => Array.from({ length: 10 }, (_, i) => `input ${partition} ${i}`)
const plain = value => ({ timestamp: '1', key: null, value, headers: {} })

// Marks the end of both partitions, for a reader that cannot know where the records that it may see end.
async function finish(topic) {
  for (const p of [0, 1]) await produceAll(topic, p, [[plain('end')]])
}

// The values of both partitions before their end.
async function values(topic, readUncommitted) {
  const consumer = kafka.consumer({ groupId: `${prefix}reader-${readers++}`, maxWaitTimeInMs: 50, readUncommitted })
  const got = [[], []]
  await consumer.connect()
  try {
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({ autoCommit: false, eachMessage: async ({ partition, message }) => got[partition].push(text(message.value)) })
    await until(() => `end of ${topic}, read ${got.map(g => g.length)}`, () => got.every(g => g.includes('end')))
  } finally {
    await consumer.disconnect()
  }
  return got.map(g => g.slice(0, g.indexOf('end')))
}

async function transactions() {
  await create(TXN, 2)
  const producer = transactional('transactions')
  await producer.connect()
  for (const [number, commit] of COMMITS.entries()) {
    const transaction = await producer.transaction()
    for (const partition of [0, 1])
      await transaction.send({ topic: TXN, messages: inTransaction(number, partition).map(value => ({ partition, value })) })
    await (commit ? transaction.commit() : transaction.abort())
  }
  await producer.disconnect()
  await finish(TXN)
  for (const uncommitted of [false, true]) {
    const visible = [0, 1].map(p => COMMITS.flatMap((commit, number) => (commit || uncommitted ? inTransaction(number, p) : [])))
    equal(await values(TXN, uncommitted), visible, uncommitted ? 'read uncommitted' : 'read committed')
  }
  return `${COMMITS.length} transactions`
}

// Consume, transform, produce: four records a transaction, of which the second is aborted and repeated.
async function transactionOffsets() {
  for (const topic of [SOURCE, SINK]) await create(topic, 2)
  for (const p of [0, 1]) await produceAll(SOURCE, p, [toTransform(p).map(plain)])
  const groupId = prefix + 'transform', wanted = [0, 1].map(p => toTransform(p).map(v => v.toUpperCase()))
  const producer = transactional('transform'), consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 50 })
  let done = 0, aborted = [], problem = null
  const committed = async () => (await admin.fetchOffsets({ groupId, topics: [SOURCE] }))[0].partitions
    .reduce((sum, p) => sum + Math.max(0, Number(p.offset)), 0)
  const round = async (partition, messages) => {
    const transaction = await producer.transaction(), output = messages.map(m => text(m.value).toUpperCase())
    const offset = String(Number(messages[messages.length - 1].offset) + 1), abort = done > 0 && aborted.length === 0
    await transaction.send({ topic: SINK, messages: output.map(value => ({ partition, value })) })
    await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic: SOURCE, partitions: [{ partition, offset }] }] })
    await (abort ? transaction.abort() : transaction.commit())
    if (abort) aborted = output
    else done += messages.length
    await until(() => `committed offsets of ${done} records`, async () => (await committed()) === done)
    return abort ? 0 : messages.length
  }
  await producer.connect()
  await consumer.connect()
  try {
    await consumer.subscribe({ topic: SOURCE, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch }) => {
        try {
          for (let at = 0; at < batch.messages.length && !problem;) at += await round(batch.partition, batch.messages.slice(at, at + 4))
        } catch (error) {
          problem = error
        }
      },
    })
    await until(() => `all transformed, ${done} records`, () => problem || done >= 20)
    if (problem) throw problem
  } finally {
    await consumer.disconnect()
    await producer.disconnect()
  }
  await finish(SINK)
  equal(await values(SINK, false), wanted, 'read committed')
  const twice = wanted.map(w => w.flatMap(v => (v === aborted[0] ? [...aborted, v] : [v])))
  equal(await values(SINK, true), twice, 'read uncommitted')
  return `${done} records once, ${aborted.length} of them aborted before`
}

async function transactionFenced() {
  await create(FENCED, 2)
  const first = transactional('fenced'), second = transactional('fenced')
  await first.connect()
  await second.connect()
  const old = await first.transaction()
  await old.send({ topic: FENCED, messages: [{ partition: 0, value: 'first' }] })
  const transaction = await second.transaction()
  await raised('INVALID_PRODUCER_EPOCH', () => old.commit()) // PRODUCER_FENCED is newer than the client
  await transaction.send({ topic: FENCED, messages: [{ partition: 0, value: 'second' }] })
  await transaction.commit()
  await first.disconnect()
  await second.disconnect()
  await finish(FENCED)
  equal(await values(FENCED, false), [['second'], []], 'read committed')
  equal(await values(FENCED, true), [['first', 'second'], []], 'read uncommitted')
}

// A group member that commits what it read and keeps what it owns up to date.
async function join(groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 200, maxWaitTimeInMs: 50, rebalanceTimeout: 5000 })
  const member = { consumer, owned: [], got: [], stopping: false }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { member.owned = payload.memberAssignment[GROUP] || [] })
  consumer.on(consumer.events.REBALANCING, () => { member.owned = [] })
  await consumer.connect()
  await consumer.subscribe({ topic: GROUP, fromBeginning: true })
  await consumer.run({
    autoCommitThreshold: 1,
    eachMessage: async ({ message }) => member.got.push(text(message.value)),
  })
  return member
}

async function group() {
  const id = prefix + 'group-roundrobin', all = [], members = []
  const produced = async () => {
    for (let p = 0; p < 4; p++) {
      const batch = Array.from({ length: 10 }, (_, i) => ({ timestamp: '1', key: null, value: `${p} ${all.length + i}`, headers: {} }))
      all.push(...batch.map(r => r.value))
      await produceAll(GROUP, p, [batch])
    }
  }
  const settled = (...counts) => until(
    () => `assignment ${counts} with ${all.length} records read once, owned ${JSON.stringify(members.map(m => m.owned))}, read ${members.map(m => m.got.length)}`,
    () => {
      const owned = members.filter(m => !m.stopping).map(m => m.owned)
      return JSON.stringify(owned.map(o => o.length).sort()) === JSON.stringify(counts) && new Set(owned.flat()).size === 4 &&
        JSON.stringify(members.flatMap(m => m.got).sort()) === JSON.stringify([...all].sort())
    })
  try {
    await produced()
    members.push(await join(id))
    await settled(4)
    members.push(await join(id))
    await settled(2, 2)
    await produced()
    await settled(2, 2)
    const found = (await admin.describeGroups([id])).groups[0]
    equal([found.state, found.members.length], ['Stable', 2], 'state, members')
    members[0].stopping = true
    await members[0].consumer.disconnect()
    await settled(4)
    await produced()
    await settled(4)
    return `${all.length} records once, ${found.protocol}`
  } finally {
    for (const m of members) await m.consumer.disconnect()
  }
}

const committed = async () => {
  const found = (await admin.fetchOffsets({ groupId: COMMITTED, topics: [ORDER] }))[0].partitions[0]
  return [Number(found.offset), found.metadata]
}

async function commitMetadata() {
  const consumer = kafka.consumer({ groupId: COMMITTED, maxWaitTimeInMs: 50 })
  await consumer.connect()
  await consumer.subscribe({ topic: ORDER, fromBeginning: true })
  let joined = false
  consumer.on(consumer.events.GROUP_JOIN, () => { joined = true })
  await consumer.run({ autoCommit: false, eachMessage: async () => {} })
  await until(() => 'join', () => joined)
  const commit = metadata => consumer.commitOffsets([{ topic: ORDER, partition: 0, offset: '7', metadata }])
  await commit('höhe 7')
  equal(await committed(), [7, 'höhe 7'], 'committed')
  await raised('OFFSET_METADATA_TOO_LARGE', () => commit('x'.repeat(5000)))
  await consumer.disconnect()
}

async function lag() {
  equal((await high(ORDER, 0)) - (await committed())[0], ORDERED - 7, 'lag')
}

async function groups() {
  equal((await admin.listGroups()).groups.some(g => g.groupId === COMMITTED && g.protocolType === 'consumer'), true, 'listed')
  const found = (await admin.describeGroups([COMMITTED])).groups[0]
  equal([found.state, found.members.length], ['Empty', 0], 'state, members')
  await admin.setOffsets({ groupId: COMMITTED, topic: ORDER, partitions: [{ partition: 0, offset: '3' }] })
  equal((await committed())[0], 3, 'altered offset')
}

async function deleteGroup() {
  await until(() => 'empty group', async () => (await admin.describeGroups([COMMITTED])).groups[0].state === 'Empty')
  await admin.deleteGroups([COMMITTED])
  equal((await committed())[0], -1, 'offset of a deleted group')
  await raised('GROUP_ID_NOT_FOUND', () => admin.deleteGroups([COMMITTED]))
}

async function configs() {
  const resource = { type: ConfigResourceTypes.TOPIC, name: TIME }
  const found = async (...names) => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...resource, configNames: names }] })
    return names.map(n => resources[0].configEntries.find(e => e.configName === n).configValue)
  }
  const alter = config => admin.alterConfigs({ validateOnly: false,
    resources: [{ ...resource, configEntries: Object.entries(config).map(([name, value]) => ({ name, value })) }] })
  equal(await found('retention.ms', 'cleanup.policy'), ['-1', 'delete'], 'retention.ms, cleanup.policy')
  await alter({ ...KEEP, 'max.message.bytes': '50000' })
  equal(await found('retention.ms', 'max.message.bytes'), ['-1', '50000'], 'retention.ms, max.message.bytes')
  const large = [{ timestamp: '1', key: null, value: '0123456789'.repeat(7500), headers: {} }]
  await raised('MESSAGE_TOO_LARGE', () => produceAll(TIME, 0, [large]))
  await alter(KEEP) // the old API: what is not named goes back to its default
  equal(await found('retention.ms', 'max.message.bytes'), ['-1', '1048588'], 'retention.ms, max.message.bytes')
  equal(await produceAll(TIME, 0, [large]), [RECORDS.length], 'base offset')
  await raised('INVALID_CONFIG', () => alter({ 'max.message.bytes': 'many' }))
}

async function createPartitions() {
  const grow = count => admin.createPartitions({ topicPartitions: [{ topic: GROUP, count }] })
  await grow(6)
  await until(() => '6 partitions', async () => (await admin.fetchTopicOffsets(GROUP)).length === 6)
  equal(await produceAll(GROUP, 5, [RECORDS.slice(0, 1)]), [0], 'base offset')
  await raised('INVALID_PARTITIONS', () => grow(5))
}

async function deleteRecords() {
  await admin.deleteTopicRecords({ topic: ORDER, partitions: [{ partition: 0, offset: '100' }] })
  equal((await admin.fetchTopicOffsets(ORDER))[0].low, '100', 'start offset')
  return checkRecords(await read(ORDER, 0, 50, 100, ORDERED - 100), ordered(100)) // below the start: reset to earliest
}

async function compacted() {
  // INVALID_RECORD is newer than the client: it has no name for code 87.
  await assert.rejects(() => produceAll(COMPACT, 0, [[{ timestamp: '1', key: null, value: 'no key', headers: {} }]]))
  equal(await produceAll(COMPACT, 0, [[{ timestamp: '1', key: 'k', value: 'v', headers: {} }]]), [0], 'base offset')
}

async function deleteTopic() {
  await admin.deleteTopics({ topics: [GONE] })
  await until(() => 'topic deleted', async () => !(await admin.listTopics()).includes(GONE))
  await raised('UNKNOWN_TOPIC_OR_PARTITION', () => admin.deleteTopics({ topics: [GONE] }))
}

// The compacted topic of holes.py: what is left in it, from several offsets on, of which most are gone.
async function holes() {
  const [[topic, end], ...left] = fs.readFileSync(holesFile, 'ascii').split('\n').filter(line => line).map(line => line.split('\t'))
  for (let start = 0; start < Number(end); start += 23) {
    const consumer = kafka.consumer({ groupId: `${prefix}reader-${readers++}`, maxWaitTimeInMs: 50 })
    const want = left.filter(l => Number(l[0]) >= start).map(([offset, key, value]) => [offset, unescape(key), unescape(value)])
    const got = []
    await consumer.connect()
    try {
      await consumer.subscribe({ topic, fromBeginning: true })
      await consumer.run({
        autoCommit: false,
        // A seek is asked for once it runs: what came before is not counted.
        eachMessage: async ({ message: m }) => Number(m.offset) >= start && got.push([m.offset, text(m.key), text(m.value)]),
      })
      consumer.seek({ topic, partition: 0, offset: String(start) })
      await until(() => `record at the end, read ${got.length} from ${start}`, () => got.some(g => Number(g[0]) === end - 1))
    } finally {
      await consumer.disconnect()
    }
    equal(got, want, `records from ${start}`)
  }
  return `${left.length} of ${end} offsets`
}

// Keys that the client places by itself; run.py looks where they are.
async function placement() {
  await create(prefix + 'placed', 12)
  const producer = kafka.producer({ retry: RETRY })
  await producer.connect()
  const keys = [...Array.from({ length: 300 }, (_, i) => `key-${i}`), ...Array(30).fill(null)]
  await producer.send({ topic: prefix + 'placed', messages: keys.map(key => ({ key, value: 'v' })) })
  await producer.disconnect()
}

// A topic that places records by itself, and writes of a transactional and of an idempotent producer. run.py looks at it.
async function routed() {
  const topic = prefix + 'routed', keys = Array.from({ length: 50 }, (_, i) => `key-${i}`)
  await create(topic, 12, { 'pelton.partitioner': 'fnv1a' })
  let producer = transactional('routed')
  await producer.connect()
  for (const [number, commit] of COMMITS.entries()) {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: keys.map(key => ({ key, value: String(number) })) })
    await (commit ? transaction.commit() : transaction.abort())
  }
  await producer.disconnect()
  producer = kafka.producer({ idempotent: true, retry: RETRY })
  await producer.connect()
  await producer.send({ topic, messages: keys.map(key => ({ key, value: 'last' })) })
  await producer.disconnect()
}

async function main() {
  console.log(`# kafkajs ${require('kafkajs/package.json').version} on ${bootstrap}, names start with ${prefix}`)
  await zstd.init()
  await admin.connect()
  await run('create-topic', createTopics)
  await run('metadata', metadata)
  let partition = 0
  for (const codec of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD'])
    for (const acks of [0, 1, -1]) {
      const p = partition++
      await run(`produce-${codec.toLowerCase()}-${acks < 0 ? 'all' : acks}`, () => produce(CompressionTypes[codec], acks, p))
    }
  await run('read-back', readBack)
  skip('null-header', 'the client cannot send one')
  skip('header-order-across-names', 'the client keeps headers by name')
  await run('idempotent', idempotent)
  await run('small-fetches', smallFetches)
  await run('seek-timestamp', seekTimestamp)
  await run('transactions', transactions)
  await run('transactions-offsets', transactionOffsets)
  await run('transactions-fenced', transactionFenced)
  await run('group-roundrobin', group)
  await run('commit-metadata', commitMetadata)
  await run('lag', lag)
  await run('groups', groups)
  await run('delete-group', deleteGroup)
  await run('configs', configs)
  await run('create-partitions', createPartitions)
  await run('delete-records', deleteRecords)
  await run('compacted-needs-key', compacted)
  await run('compacted-holes', holes)
  await run('placement', placement)
  if (process.env.PELTON_ROUTED) await run('routed', routed)
  await run('delete-topic', deleteTopic)
  await admin.disconnect()
  process.exit(failed ? 1 : 0)
}

main()
