// Writes rounds with kafkajs, as it is told to: one record of each key, wherever it likes. Usage: node rounds.js BOOTSTRAP TOPIC NAME
// TRANSACTIONAL. Each line that it reads is `ROUND PARTITIONS`; what it answers is the fate of the round: `there`, `aborted`, or
// `unknown`. Every fourth transaction is aborted.
'use strict'
const readline = require('readline')
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic, name, kind] = process.argv.slice(2)
const retry = { retries: 100, initialRetryTime: 50, maxRetryTime: 400 }
const kafka = new Kafka({ clientId: name, brokers: [bootstrap], logLevel: logLevel.NOTHING, requestTimeout: 10000, retry })
const transactional = kind === 'transactional'
const id = transactional ? { transactionalId: name, maxInFlightRequests: 1 } : {}
const made = () => kafka.producer({ idempotent: true, metadataMaxAge: 100, retry, ...id })
let producer = made()
const KEYS = ['eu', 'us', 'asia'].flatMap(region => [...Array(10).keys()].map(n => `${region}-${name}-${n}`))

async function round(number, partitions) {
  const message = (key, n) => ({ key, value: String(number), partition: (number * 7 + n) % partitions })
  const batch = { topic, acks: -1, messages: KEYS.map(message) }
  if (!transactional) {
    await producer.send(batch)
    return 'there'
  }
  let fate = 'aborted'
  try {
    const transaction = await producer.transaction()
    try {
      await transaction.send(batch)
      if (number % 4 === 3) {
        await transaction.abort()
        return 'aborted'
      }
      // From here on nobody knows, until the answer is there.
      fate = 'unknown'
      await transaction.commit()
      return 'there'
    } catch {
      await transaction.abort()
    }
  } catch {
    // It does not ask again in a transaction whose connection broke. Who takes its place begins with ending what it has left open.
    await producer.disconnect()
    producer = made()
    await producer.connect()
  }
  return fate
}

async function main() {
  await producer.connect()
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [number, partitions] = line.split(' ').map(Number)
    console.log(await round(number, partitions))
  }
  await producer.disconnect()
}

main().catch(error => {
  console.error(`the rounds end: ${error.stack}`)
  process.exit(1)
})
