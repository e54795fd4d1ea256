// Asks the next service: one thread, many orders at a time.
import { appendFileSync } from 'node:fs';
import http from 'node:http';

const [next, address] = process.env.SHOP_NEXT.split('=');
const end = (text) => ({ host: text.slice(0, text.lastIndexOf(':')), port: Number(text.slice(text.lastIndexOf(':') + 1)) });
const agent = new http.Agent({ keepAlive: true });

http.createServer({ keepAliveTimeout: 0 }, (request, response) => {
  const order = request.url.replace('/orders/', '');
  const trace = request.headers.traceparent;
  const headers = trace ? { traceparent: trace } : {};
  const asked = http.request({ ...end(address), agent, path: request.url, headers }, (answer) => {
    const pieces = [];
    answer.on('data', (piece) => pieces.push(piece));
    answer.on('end', () => {
      appendFileSync(process.env.SHOP_LOG, `${order} ${next} ${answer.statusCode}\n`);
      const body = Buffer.concat(pieces);
      response.writeHead(answer.statusCode, { 'Content-Length': body.length });
      response.end(body);
    });
  });
  asked.on('error', (error) => {
    console.error(error);
    response.writeHead(502);
    response.end();
  });
  asked.end();
}).listen(end(process.env.SHOP_LISTEN));
