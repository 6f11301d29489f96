// A file's way in and out, as a good client does it: what is refused is sent again, later, and not for ever.

import http from 'k6/http';
import { sleep } from 'k6';

import * as counts from './counts.js';
import { CHUNK_BYTES, CHUNKS, MOST_TRIES, TIMEOUT, URL } from './settings.js';

// To the letter; a client may compare the text and a program the code.
export const BUSY = '{"error":"Server busy, please retry","code":"uploads_busy"}';

const IV = 'AAAAAAAAAAAAAAAA';
// 400 is only expected where it says BUSY: every other 400 is counted as unexpected by whoever reads the answer.
const storedOrBusy = http.expectedStatuses(200, 400);

export function open(user) {
  const file = {
    size: CHUNKS * CHUNK_BYTES, // the truth: nothing is encrypted here, so a chunk has no overhead
    encrypted_metadata: '-',
    mime_type: 'application/octet-stream',
    folder_id: 'root',
    encrypted_file_key: '-',
    total_chunks: CHUNKS,
  };
  const answer = post(user, '/drive/initialize_file', JSON.stringify(file));
  return is200('initialize', answer) ? answer.json('file_id') : null;
}

// One chunk as a request, for http.batch or sent().
export function chunkRequest(user, fileId, index, bytes, more) {
  return {
    method: 'POST',
    url: `${URL}/drive/upload_chunk_binary?file_id=${fileId}&index=${index}&iv=${IV}`,
    body: bytes,
    params: Object.assign(
      {
        headers: Object.assign({ 'Content-Type': 'application/octet-stream' }, user),
        responseCallback: storedOrBusy,
        tags: { name: 'upload_chunk_binary' },
        timeout: TIMEOUT,
      },
      more,
    ),
  };
}

export function sent(request) {
  return http.request(request.method, request.url, request.body, request.params);
}

export function isBusy(answer) {
  return answer.status === 400 && answer.body === BUSY;
}

// Count the answer to a chunk of which the digest is known: 'stored', 'busy' or 'failed'.
export function read(answer, digest) {
  if (isBusy(answer)) {
    counts.chunksRefused.add(1);
    return 'busy';
  }
  if (!is200('chunk', answer)) {
    return 'failed';
  }
  counts.chunksStored.add(1);
  counts.chunkDuration.add(answer.timings.duration);
  if (answer.json('data_hash') !== digest) {
    counts.damaged('the server stored other bytes than were sent');
    return 'failed';
  }
  return 'stored';
}

// Send all chunks of the payload's file `number`, up to `parallel` at once. False: it could not be done.
// `before` sees each request before it is sent.
export function sendChunks(user, fileId, payload, number, parallel, before = () => {}) {
  let waiting = Array.from({ length: CHUNKS }, (_, index) => ({ index, tries: 0 }));
  while (waiting.length > 0) {
    const batch = waiting.slice(0, parallel);
    const requests = batch.map(({ index }) => chunkRequest(user, fileId, index, payload.chunk(number, index)));
    requests.forEach(before);
    const answers = http.batch(requests);
    const outcomes = answers.map((answer, at) => read(answer, payload.digest(number, batch[at].index)));
    if (outcomes.includes('failed')) {
      return false;
    }
    const refused = batch.filter((_, at) => outcomes[at] === 'busy');
    if (refused.some((chunk) => ++chunk.tries >= MOST_TRIES)) {
      counts.filesGivenUp.add(1);
      return false;
    }
    waiting = refused.concat(waiting.slice(parallel));
    if (refused.length > 0) {
      sleep(patience(answers.filter(isBusy)));
    }
  }
  return true;
}

// What the server asked for, and as much again at random: users refused together must not come back together.
function patience(answers) {
  const seconds = Math.max(...answers.map((answer) => Number(answer.headers['Retry-After']) || 1));
  return seconds * (1 + Math.random());
}

export function finalize(user, fileId) {
  return is200('finalize', post(user, `/drive/finalize_upload/${fileId}/completed`, null));
}

// Finalize what is not complete: the status, and what the server misses.
export function finalizeIncomplete(user, fileId) {
  const more = { responseCallback: http.expectedStatuses(409) };
  const answer = post(user, `/drive/finalize_upload/${fileId}/completed`, null, more);
  return { status: answer.status, missing: answer.status === 409 ? answer.json('missing') : null };
}

export function abort(user, fileId) {
  return is200('abort', post(user, '/drive/abort_upload', JSON.stringify({ file_id: fileId })));
}

// File info must name every chunk with the digest of what was sent.
export function info(user, fileId, payload, number) {
  const answer = get(user, '/drive/file/', fileId);
  if (!is200('info', answer)) {
    return false;
  }
  const chunks = answer.json('chunks');
  const isRight = chunks.length === CHUNKS && chunks.every((chunk) => chunk.sha256 === payload.digest(number, chunk.index));
  if (!isRight) {
    counts.damaged('file info names other chunks than were sent');
  }
  return isRight;
}

// The whole file, compared with what was sent.
export function download(user, fileId, payload, number) {
  const answer = get(user, '/drive/download/', fileId, { responseType: 'binary' });
  if (!is200('download', answer)) {
    return false;
  }
  counts.downloadDuration.add(answer.timings.duration);
  if (!payload.isFile(number, answer.body)) {
    counts.damaged('a file came back with other bytes than were sent');
    return false;
  }
  counts.filesWhole.add(1);
  return true;
}

function get(user, path, fileId, more) {
  const params = { headers: user, tags: { name: path }, timeout: TIMEOUT };
  return http.get(URL + path + fileId, Object.assign(params, more));
}

function post(user, path, body, more) {
  const headers = Object.assign({ 'Content-Type': 'application/json' }, user);
  const params = { headers, tags: { name: path.replace(/[0-9a-f-]{36}/, '{id}') }, timeout: TIMEOUT };
  return http.post(URL + path, body, Object.assign(params, more));
}

function is200(what, answer) {
  if (answer.status === 200 || answer.status === 201) {
    return true;
  }
  counts.unexpected(what, answer);
  return false;
}
