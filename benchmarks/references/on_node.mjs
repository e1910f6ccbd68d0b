// Node's http and the package ws: an async generator, and a write or a send for each token.
//
//     node on_node.mjs FOLDER      FOLDER/node_modules has ws
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { setImmediate as turn } from 'node:timers/promises'

const { WebSocketServer } = createRequire(`${process.argv[2]}/`)('ws')

async function* answer (prompt) {
  const words = Object.fromEntries(prompt.split(' ').map((word) => word.split('=')))
  const tokens = Number(words.tokens ?? 1)
  const burst = Number(words.burst ?? 1)
  for (let number = 1; number <= tokens; number++) {
    yield 'token '
    if (number % burst === 0) await turn()
  }
}

async function speak (prompt, send) {
  const ids = `"stream_id":"${randomUUID()}","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","epoch":1700000000000`
  let seq = 1
  send(`{"type":"status",${ids},"seq":1,"status":"thinking"}\n`)
  for await (const text of answer(prompt)) {
    send(`{"type":"token",${ids},"seq":${++seq},"text":${JSON.stringify(text)}}\n`)
  }
  send(`{"type":"done",${ids},"seq":${seq + 1},"finish_reason":"stop"}\n`)
}

const server = createServer(async (request, response) => {
  let body = ''
  for await (const piece of request) body += piece
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
  await speak(JSON.parse(body).prompt, (frame) => response.write(frame))
  response.end()
})

new WebSocketServer({ server, path: '/ws', perMessageDeflate: false }).on('connection', (ws) => {
  ws.on('message', (data) => { speak(JSON.parse(data).prompt, (frame) => ws.send(frame)) })
})

server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
