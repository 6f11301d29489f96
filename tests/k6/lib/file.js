// One file from initialize to download, and the bound on how many of them stay on the server's disk.

import exec from 'k6/execution';

import * as counts from './counts.js';
import { CHUNK_BYTES, CHUNKS, MOST_STORED_BYTES } from './settings.js';
import * as upload from './upload.js';

const FILE_BYTES = CHUNKS * CHUNK_BYTES;

export class Sender {
  constructor(user, payload) {
    this.user = user;
    this.payload = payload;
    this.files = 0;
    this.storedBytes = 0;
  }

  // Send the next file and read it back. Stops at the first answer an ordinary client could not go on with.
  send({ parallel, before }) {
    const number = this.files++;
    const began = Date.now();
    const fileId = upload.open(this.user);
    if (!fileId) {
      return;
    }
    if (!upload.sendChunks(this.user, fileId, this.payload, number, parallel, before)) {
      upload.abort(this.user, fileId);
      return;
    }
    if (!this.mayStore()) {
      upload.abort(this.user, fileId);
      counts.filesTakenBack.add(1);
      return;
    }
    if (upload.finalize(this.user, fileId)) {
      this.storedBytes += FILE_BYTES;
      counts.fileDuration.add(Date.now() - began);
      upload.info(this.user, fileId, this.payload, number);
      upload.download(this.user, fileId, this.payload, number);
    }
  }

  // Each user has the same share of what all together may leave on the disk, and at least one file.
  mayStore() {
    const share = MOST_STORED_BYTES / exec.instance.vusInitialized;
    return this.storedBytes === 0 || this.storedBytes + FILE_BYTES <= share;
  }
}
