// node:http
import { createWriteStream } from 'node:fs';
import http from 'node:http';

const [port, path] = process.argv.slice(2);
const log = createWriteStream(path, { flags: 'a' });

http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const [, kind, text] = request.url.split('/');
    const number = Number(text);
    if (kind === 'status') {
      response.statusCode = number;
      response.end(number === 204 || number === 304 ? undefined : text);
    } else if (kind === 'echo') {
      response.end(Buffer.concat(pieces));
    } else if (kind === 'fixed') {
      response.setHeader('Content-Length', number);
      response.end('x'.repeat(number));
    } else {
      const half = Math.floor(number / 2);
      response.setHeader('Transfer-Encoding', 'chunked');
      response.write('x'.repeat(half));
      response.end('x'.repeat(number - half));
    }
    log.write(`${request.method} ${request.url} ${response.statusCode} ${request.socket.remotePort}\n`);
  });
}).listen(Number(port), '127.0.0.1');
