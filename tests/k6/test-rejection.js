// More users than places: the server must say no, so that everybody can read it, and damage nothing it accepted.
//
//   k6 run tests/k6/test-rejection.js              (GAUZIAN_URL, USERS, SECONDS, CHUNK_BYTES, CHUNKS)
//
// Fails unless refusals were seen. USERS has to be well above the server's MAX_CONCURRENT_UPLOADS.

import { sleep } from 'k6';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';

import { joinAll } from './lib/account.js';
import * as counts from './lib/counts.js';
import { Payload } from './lib/payload.js';
import { CHUNKS, seconds, users } from './lib/settings.js';
import * as upload from './lib/upload.js';

const USERS = users(100);
const SECONDS = seconds(30);
// Each user sends the chunks of so many files again and again: the load has no end, what is stored has.
const FILES = 2;
// One account may hold half of the places at most: with four the places run out and not only a share of them.
const ACCOUNTS = 4;
// A rude crowd does not wait for Retry-After; a moment it needs, or it would measure how fast k6 can be refused.
const PAUSE_SECONDS = 0.05;
const MOST_RETRY_AFTER_SECONDS = 10;

const unreadable = new Counter('refusals_unreadable');

export const options = {
  scenarios: {
    // One long iteration for each user: only the user itself knows which of its chunks were accepted.
    crowd: { executor: 'per-vu-iterations', vus: USERS, iterations: 1, maxDuration: `${SECONDS + 120}s` },
  },
  thresholds: Object.assign({}, counts.thresholds, {
    chunks_refused: ['count>0'],
    refusals_unreadable: ['count==0'],
    iterations: [`count==${USERS}`], // every user came to the end of its checks
  }),
};

const payload = new Payload();

export function setup() {
  // A few accounts for all: see lib/account.js.
  return joinAll('rejection', ACCOUNTS);
}

export default counts.guarded((accounts) => {
  const user = accounts[exec.vu.idInTest % accounts.length];
  const files = Array.from({ length: FILES }, (_, number) => ({ number, id: upload.open(user), stored: new Set() }));
  if (files.some((file) => file.id === null)) {
    return;
  }
  press(user, files, exec.scenario.startTime + SECONDS * 1000);
  files.forEach((file) => check(user, file));
});

// Send chunk after chunk until the end; what is refused comes again with the next round.
function press(user, files, end) {
  for (let turn = 0; Date.now() < end; turn++) {
    const file = files[Math.floor(turn / CHUNKS) % FILES];
    send(user, file, next(file, turn));
    sleep(PAUSE_SECONDS * Math.random());
  }
}

// One that is still missing, so that some files get whole however few are let in; of a whole file any, for the load goes on.
function next(file, turn) {
  const inTurn = range(0, CHUNKS).map((at) => (turn + at) % CHUNKS);
  return inTurn.find((index) => !file.stored.has(index)) ?? inTurn[0];
}

function send(user, file, index) {
  const answer = upload.sent(upload.chunkRequest(user, file.id, index, payload.chunk(file.number, index)));
  const outcome = upload.read(answer, payload.digest(file.number, index));
  if (outcome === 'stored') {
    file.stored.add(index);
  } else if (outcome === 'busy') {
    checkRefusal(answer);
  } else if (answer.status === 400 || answer.status === 0) {
    unreadable.add(1); // another text, or the connection broke before there was one
  }
}

// upload.read has compared status and body to the letter.
function checkRefusal(answer) {
  const seconds = Number(answer.headers['Retry-After']);
  if (!(seconds >= 1 && seconds <= MOST_RETRY_AFTER_SECONDS) || !/^application\/json/.test(answer.headers['Content-Type'])) {
    unreadable.add(1);
    console.error(`a refusal with these headers: ${JSON.stringify(answer.headers)}`);
  }
}

// After the load: what was accepted is there as it was sent, what was refused is not.
function check(user, file) {
  if (file.stored.size < CHUNKS) {
    checkIncomplete(user, file);
    upload.abort(user, file.id);
    counts.filesTakenBack.add(1);
  } else if (upload.finalize(user, file.id)) {
    upload.info(user, file.id, payload, file.number);
    upload.download(user, file.id, payload, file.number);
  }
}

function checkIncomplete(user, file) {
  const { status, missing } = upload.finalizeIncomplete(user, file.id);
  const listed = new Set((missing || []).flatMap(([first, last]) => range(first, last + 1)));
  const isRight = range(0, CHUNKS).every((index) => listed.has(index) !== file.stored.has(index));
  if (status !== 409 || !isRight) {
    counts.damaged(`accepted: ${[...file.stored]}; finalize: ${status}, missing ${JSON.stringify(missing)}`);
  }
}

function range(first, end) {
  return Array.from({ length: end - first }, (_, at) => first + at);
}
