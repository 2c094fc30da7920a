// A Node process that holds N MB and can prove that it still has them.
//
//   node node-hog.js MB      prints its port, then serves:
//   /sum       a checksum over all of the memory
//   /pid       its process id
//   /counter   how often this was asked, kept in memory only
'use strict';

const http = require('node:http');

const PIECE = 64 * 1024;
const megabytes = Number(process.argv[2] ?? 64);

// xorshift32: every page differs, so that nothing merges or compresses it away.
function fill(view, seed) {
  let x = seed | 1;
  for (let i = 0; i < view.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    view[i] = x;
  }
}

// Half in buffers outside of V8's heap, half in arrays inside it.
function allocate() {
  const pieces = [];
  for (let i = 0; i < (megabytes << 20) / PIECE; i++) {
    if (i % 2) {
      const view = new Int32Array(PIECE / 4);
      fill(view, i);
      pieces.push(view);
    } else {
      const numbers = new Array(PIECE / 8).fill(0.5); // doubles, 8 bytes each
      fill(numbers, i);
      pieces.push(numbers);
    }
  }
  return pieces;
}

function sum(pieces) {
  let total = 0;
  for (const piece of pieces) {
    for (let i = 0; i < piece.length; i++) total = (Math.imul(total, 31) + piece[i]) | 0;
  }
  return total;
}

const pieces = allocate();
let counter = 0;

const answers = {
  '/sum': () => sum(pieces),
  '/pid': () => process.pid,
  '/counter': () => ++counter,
};

const server = http.createServer((request, response) => {
  const answer = answers[request.url];
  response.writeHead(answer ? 200 : 404, { 'Content-Type': 'text/plain', Connection: 'close' });
  response.end(answer ? String(answer()) : '');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
