// The real Bull Board on BullMQ's own queues, and what BullMQ itself says of them, used through documented APIs only.
//
// Arguments: the store's socket, then the names of the queues. Prints the port on which it listens; ends with its
// standard input. Packages are loaded from the directory named by CORRAL_NODE_MODULES.
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'bull_board.mjs'));
const { createBullBoard } = require('@bull-board/api');
const { BullMQAdapter } = require('@bull-board/api/bullMQAdapter');
const { ExpressAdapter } = require('@bull-board/express');
const { Queue } = require('bullmq');
const express = require('express');

const [, , socket, ...names] = process.argv;
const queues = new Map(names.map((name) => [name, new Queue(name, { connection: { path: socket } })]));
const server = new ExpressAdapter();
server.setBasePath('/board');
createBullBoard({ queues: [...queues.values()].map((queue) => new BullMQAdapter(queue)), serverAdapter: server });

const app = express();
app.use('/board', server.getRouter());
app.get('/paused/:queue', async (request, response) => response.json(await queues.get(request.params.queue).isPaused()));
app.get('/workers/:queue', async (request, response) => {
  const workers = await queues.get(request.params.queue).getWorkers();
  response.json(workers.map((each) => each.name));
});
const listening = app.listen(0, '127.0.0.1', () => console.log(listening.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
