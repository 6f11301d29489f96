// The bytes a user sends: one random buffer per user, of which every chunk is a view.
//
// A hundred users with ten chunks of 10 MiB each would be 10 GB as buffers of their own, and 1 GB as views of one. The
// bytes come from k6's crypto: a generator written in JavaScript takes a second for 10 MiB, and that for every user.

import crypto from 'k6/crypto';

import { CHUNK_BYTES, CHUNKS } from './settings.js';

// Neighbouring windows overlap, but no two of them are equal.
const STRIDE = 1021;
// More windows than chunks, so that files that start at different windows differ as well.
const WINDOWS = CHUNKS + 7;

export class Payload {
  constructor() {
    this.buffer = crypto.randomBytes(CHUNK_BYTES + WINDOWS * STRIDE);
    this.digests = [];
  }

  // The bytes of chunk `index` of the user's file number `file`.
  chunk(file, index) {
    return new Uint8Array(this.buffer, window(file, index) * STRIDE, CHUNK_BYTES);
  }

  // Their SHA-256, computed once per window.
  digest(file, index) {
    const at = window(file, index);
    this.digests[at] = this.digests[at] || crypto.sha256(this.chunk(file, index), 'hex');
    return this.digests[at];
  }

  // Are these bytes the chunks of this file, in order and nothing else?
  isFile(file, bytes) {
    if (!bytes || bytes.byteLength !== CHUNKS * CHUNK_BYTES) {
      return false;
    }
    for (let index = 0; index < CHUNKS; index++) {
      const piece = new Uint8Array(bytes, index * CHUNK_BYTES, CHUNK_BYTES);
      if (crypto.sha256(piece, 'hex') !== this.digest(file, index)) {
        return false;
      }
    }
    return true;
  }
}

function window(file, index) {
  return (file + index) % WINDOWS;
}
