// A user of the drive: registers, signs in.
//
// Once per user or once per test, never once per file: each takes the server 19 MiB and some 30 ms for the password,
// and more than a hundred registrations from one address within an hour are slowed down on purpose. A test that did it
// for every file would measure that and not the drive.
//
// Users come from addresses of their own where the server believes X-Forwarded-For (TRUSTED_PROXIES=127.0.0.1).

import http from 'k6/http';
import { sleep } from 'k6';

import { unexpected } from './counts.js';
import { TIMEOUT, URL } from './settings.js';

const PASSWORD = 'Load-Test-Password-1';
const MOST_TRIES = 20;

// Asked for patience is not failed.
const expected = http.expectedStatuses(200, 201, 429, 503);

// A new account, signed in: its headers. Null when the server would not have it.
export function join(script) {
  const username = `${script}-${unique()}`;
  const email = `${username}@example.org`;
  const keys = { encrypted_private_key: '-', public_key: '-', private_key_salt: '-', iv: '-' };
  const account = Object.assign({ email, username, password: PASSWORD, encrypted_record_key: '-' }, keys);
  const address = randomAddress();
  if (!patiently('/register', account, address)) {
    return null;
  }
  const answer = patiently('/login', { email, password: PASSWORD }, address);
  return answer && { Authorization: `Bearer ${answer.json('token')}` };
}

export function joinAll(script, count) {
  const users = Array.from({ length: count }, () => join(script));
  if (users.includes(null)) {
    throw new Error('the server has no room for the users of this test');
  }
  return users;
}

function unique() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2);
}

function randomAddress() {
  return `10.${byte()}.${byte()}.${byte()}`;
}

function byte() {
  return Math.floor(Math.random() * 256);
}

function patiently(path, body, address) {
  const params = {
    headers: { 'Content-Type': 'application/json', 'X-Forwarded-For': address },
    responseCallback: expected,
    tags: { name: path },
    timeout: TIMEOUT,
  };
  for (let tries = 1; ; tries++) {
    const answer = http.post(URL + path, JSON.stringify(body), params);
    if (answer.status === 200 || answer.status === 201) {
      return answer;
    }
    if ((answer.status !== 429 && answer.status !== 503) || tries === MOST_TRIES) {
      unexpected(path, answer);
      return null;
    }
    sleep(Number(answer.headers['Retry-After'] || 1) * (1 + Math.random()));
  }
}
