// A long steady half load in which clients vanish: one chunk in twenty is cut off on its way and sent again.
//
//   k6 run tests/k6/test-soak.js                   (GAUZIAN_URL, USERS, SECONDS, CUT_MS, CHUNK_BYTES, CHUNKS)
//
// USERS should be half of the server's MAX_CONCURRENT_UPLOADS: each sends one chunk after the other.
//
// How a client is cut off: k6 cannot hang up half way, but it does when a request takes longer than its `timeout`. A
// chunk that is to be cut gets one of a few milliseconds at random, too short for most: some end before their headers,
// most within the body, some while the server makes the chunk durable. Those that were quick enough were simply sent;
// only those that were cut are counted (k6's error code 1050).

import exec from 'k6/execution';
import { sleep } from 'k6';

import { joinAll } from './lib/account.js';
import * as counts from './lib/counts.js';
import { Sender } from './lib/file.js';
import { Payload } from './lib/payload.js';
import { CUT_MS, seconds, users } from './lib/settings.js';
import { sent } from './lib/upload.js';

const ACCOUNTS = 4; // so that nobody meets the share of places one account may hold
const CUT_SHARE = 0.05;
const TIMED_OUT = 1050;

export const options = {
  scenarios: {
    steady: { executor: 'constant-vus', vus: users(25), duration: `${seconds(600)}s`, gracefulStop: '90s' },
  },
  thresholds: Object.assign({}, counts.thresholds, { chunks_cut: ['count>0'] }),
};

const payload = new Payload();
let sender = null;

export function setup() {
  // A few accounts for all: see lib/account.js.
  return joinAll('soak', ACCOUNTS);
}

export default counts.guarded((accounts) => {
  sender = sender || new Sender(accounts[exec.vu.idInTest % accounts.length], payload);
  sender.send({ parallel: 1, before: sometimesCut });
  sleep(Math.random() * 0.2);
});

// The same chunk is sent as a whole afterwards, as by a client that lost its connection.
function sometimesCut(request) {
  if (Math.random() >= CUT_SHARE) {
    return;
  }
  const params = Object.assign({}, request.params, { timeout: Math.random() * CUT_MS, responseCallback: null });
  const answer = sent(Object.assign({}, request, { params }));
  if (answer.error_code === TIMED_OUT) {
    counts.chunksCut.add(1);
  }
}
