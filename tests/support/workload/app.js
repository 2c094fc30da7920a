// A Node app that counts what it is asked to do.
//
//   node app.js            prints its port, then serves, with keep-alive:
//   GET  /                 "hello"
//   GET  /peer             the port that this connection comes from
//   POST /orders           takes a body, once: its size
//   GET  /orders           the sizes of all bodies taken, as JSON
'use strict';

const http = require('node:http');

const orders = [];

function take(request, done) {
  let size = 0;
  request.on('data', (piece) => (size += piece.length));
  request.on('end', () => {
    orders.push(size);
    done(String(size));
  });
}

const answers = {
  'GET /': (request, done) => done('hello'),
  'GET /peer': (request, done) => done(String(request.socket.remotePort)),
  'POST /orders': take,
  'GET /orders': (request, done) => done(JSON.stringify(orders)),
};

const server = http.createServer((request, response) => {
  const answer = answers[`${request.method} ${request.url}`];
  answer(request, (text) => response.end(text));
});
server.keepAliveTimeout = 0; // the proxy's connections stay
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
