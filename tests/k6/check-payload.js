// Would the load tests see a damaged file? Needs no server.

import { check } from 'k6';

import { Payload } from './lib/payload.js';
import { CHUNK_BYTES, CHUNKS } from './lib/settings.js';

export const options = { iterations: 1, thresholds: { checks: ['rate==1'] } };

export default function () {
  const payload = new Payload();
  check(null, {
    'the right file is recognised': () => payload.isFile(3, fileOf(payload, 3)),
    'another file of the same user is not': () => !payload.isFile(3, fileOf(payload, 4)),
    'the file of another user is not': () => !payload.isFile(3, fileOf(new Payload(), 3)),
    'one wrong byte is seen': () => !payload.isFile(3, flipped(fileOf(payload, 3))),
    'chunks in another order are seen': () => !payload.isFile(3, fileOf(payload, 3, (index) => CHUNKS - 1 - index)),
    'a missing byte is seen': () => !payload.isFile(3, fileOf(payload, 3).slice(0, -1)),
    'nothing at all is seen': () => !payload.isFile(3, null),
  });
}

function fileOf(payload, number, indexAt = (index) => index) {
  const bytes = new Uint8Array(CHUNKS * CHUNK_BYTES);
  for (let index = 0; index < CHUNKS; index++) {
    bytes.set(payload.chunk(number, indexAt(index)), index * CHUNK_BYTES);
  }
  return bytes.buffer;
}

function flipped(buffer) {
  new Uint8Array(buffer)[CHUNK_BYTES + 1] ^= 1;
  return buffer;
}
