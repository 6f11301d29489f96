// What the load tests count beside k6's own figures, and the thresholds that hold for all of them.

import { Counter, Trend } from 'k6/metrics';

import { CHUNK_P95_MS } from './settings.js';

export const chunkDuration = new Trend('chunk_duration', true); // accepted chunks only: a refusal is quick
export const fileDuration = new Trend('file_duration', true); // from initialize to finalize, with all retries
export const downloadDuration = new Trend('download_duration', true);

export const chunksStored = new Counter('chunks_stored');
export const chunksRefused = new Counter('chunks_refused'); // "Server busy": an answer, not a failure
export const chunksCut = new Counter('chunks_cut'); // by the test itself, half way

export const filesWhole = new Counter('files_whole'); // came back as they were sent
export const filesDamaged = new Counter('files_damaged');
export const filesGivenUp = new Counter('files_given_up'); // refused too often
export const filesTakenBack = new Counter('files_taken_back'); // aborted, to spare the disk

const unexpectedAnswers = new Counter('unexpected_answers');

export const thresholds = {
  http_req_failed: ['rate==0'],
  unexpected_answers: ['count==0'],
  files_damaged: ['count==0'],
  files_given_up: ['count==0'],
  files_whole: ['count>0'],
  chunk_duration: [`p(95)<${CHUNK_P95_MS}`],
};

// A few of them are shown; all of them are counted.
const MOST_SHOWN = 5;
let shown = 0;

// What an ordinary client cannot go on with.
export function unexpected(what, answer) {
  unexpectedAnswers.add(1);
  shown += 1;
  if (shown <= MOST_SHOWN) {
    const text = typeof answer.body === 'string' ? answer.body.slice(0, 200) : '';
    console.error(`${what}: ${answer.status} ${answer.error} ${text}`);
  }
}

export function damaged(what) {
  filesDamaged.add(1);
  console.error(`damaged: ${what}`);
}

// An exception ends the iteration, and k6 would call the run passed all the same.
export function guarded(iteration) {
  return (data) => {
    try {
      iteration(data);
    } catch (error) {
      unexpected('exception', { status: 0, error: error });
      throw error;
    }
  };
}
