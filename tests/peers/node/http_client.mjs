// node:http with a keep-alive agent of one socket
import http from 'node:http';

const [base, count] = process.argv.slice(2);
const statuses = [200, 404, 500, 503, 204, 304];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

const show = (method, path, body) => new Promise((done, failed) => {
  const headers = body === undefined ? {} : { 'Content-Length': body.length };
  const request = http.request(base + path, { method, agent, headers }, (answer) => {
    let size = 0;
    answer.on('data', (piece) => { size += piece.length; });
    answer.on('end', () => { console.log(method, path, answer.statusCode, size); done(); });
  });
  request.on('error', failed);
  request.end(body);
});

for (let i = 0; i < Number(count); i += 1) {
  await show('GET', `/fixed/${i}`);
  await show('GET', `/chunked/${i}`);
  await show('POST', '/echo', 'y'.repeat(i + 1));
  await show('GET', `/status/${statuses[i % 6]}`);
}
agent.destroy();
