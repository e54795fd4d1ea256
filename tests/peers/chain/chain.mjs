// As chain.py: node:http, with a pool of connections that are kept.
import { appendFileSync } from 'node:fs';
import http from 'node:http';

const [port, log, up] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
const PASSED = ['traceparent', 'tracestate', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-sampled', 'x-amzn-trace-id',
  'x-request-id'];

const ask = (path, headers) => new Promise((done, failed) => {
  http.get(up + path, { agent, headers }, (response) => {
    response.resume().on('end', done);
  }).on('error', failed);
});

http.createServer(async (request, response) => {
  const [, , who, count] = request.url.split('/');
  const headers = Object.fromEntries(PASSED.filter((name) => name in request.headers)
    .map((name) => [name, request.headers[name]]));
  for (let k = 0; k < Number(count); k += 1) {
    await ask(`/out/${who}/${k}`, headers);
    appendFileSync(log, `${who} ${k}\n`);
  }
  response.end('ok');
}).listen(Number(port), '127.0.0.1');

for (let i = 0; ; i += 1) {
  await new Promise((done) => { setTimeout(done, 5); });
  await ask(`/bg/${i}`, {});
  appendFileSync(log, `bg ${i}\n`);
}
