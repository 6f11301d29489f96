// The founding scenario: users come until there are a hundred; each registers, signs in, sends files in parallel
// batches of ten chunks, and reads them back.
//
//   k6 run tests/k6/test-upload-advanced.js        (GAUZIAN_URL, STAGES, CHUNK_BYTES, CHUNKS: lib/settings.js)

import { sleep } from 'k6';

import { join } from './lib/account.js';
import * as counts from './lib/counts.js';
import { Sender } from './lib/file.js';
import { Payload } from './lib/payload.js';
import { CHUNK_BYTES, CHUNKS, stages } from './lib/settings.js';

const PARALLEL = 10;

export const options = {
  scenarios: {
    users: {
      executor: 'ramping-vus',
      startVUs: 1,
      stages: stages('30s:20,1m:50,1m:100,1m:100,10s:0'),
      // Nobody is taken away in the middle of a file.
      gracefulRampDown: '90s',
      gracefulStop: '90s',
    },
  },
  // k6 sends at most six requests of a batch to one host unless it is told otherwise.
  batch: PARALLEL,
  batchPerHost: PARALLEL,
  thresholds: counts.thresholds,
};

const payload = new Payload();
let sender = null; // of this user, over all its files

export default counts.guarded(() => {
  // Once per user: see lib/account.js.
  sender = sender || signedIn();
  if (sender === null) {
    sleep(1); // it is counted; the others go on
    return;
  }
  sender.send({ parallel: PARALLEL });
  sleep(Math.random() * 0.2);
});

function signedIn() {
  const user = join('upload');
  return user && new Sender(user, payload);
}
