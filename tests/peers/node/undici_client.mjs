// undici with one connection; found through NODE_PATH, which import does not know
import { createRequire } from 'node:module';

const { Pool } = createRequire(import.meta.url)('undici');
const [base, count] = process.argv.slice(2);
const statuses = [200, 404, 500, 503, 204, 304];
const pool = new Pool(base, { connections: 1 });

async function show(method, path, body) {
  const answer = await pool.request({ method, path, body });
  const bytes = await answer.body.arrayBuffer();
  console.log(method, path, answer.statusCode, bytes.byteLength);
}

for (let i = 0; i < Number(count); i += 1) {
  await show('GET', `/fixed/${i}`);
  await show('GET', `/chunked/${i}`);
  await show('POST', '/echo', 'y'.repeat(i + 1));
  await show('GET', `/status/${statuses[i % 6]}`);
}
await pool.close();
