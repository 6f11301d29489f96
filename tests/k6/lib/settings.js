// What a load test can be told by environment variable. Sizes are true ones: what is declared is what is stored.

export const URL = (__ENV.GAUZIAN_URL || 'http://127.0.0.1:8080').replace(/\/$/, '');

// One chunk, and how many make a file.
export const CHUNK_BYTES = number('CHUNK_BYTES', 1024 * 1024);
export const CHUNKS = number('CHUNKS', 10);

// Where a script does not ramp: users at the same time, and for how long.
export function users(preset) {
  return number('USERS', preset);
}

export function seconds(preset) {
  return number('SECONDS', preset);
}

// "20s:5,1m:50": within 20 seconds to 5 users, then within a minute to 50.
export function stages(preset) {
  return (__ENV.STAGES || preset).split(',').map((stage) => {
    const [duration, target] = stage.trim().split(':');
    if (!/^\d+(ms|s|m|h)$/.test(duration) || !/^\d+$/.test(target)) {
      throw new Error(`STAGES: "${stage}" is not like 30s:20`);
    }
    return { duration, target: Number(target) };
  });
}

// How often one chunk is sent before its file is given up. With one to six seconds in between this is minutes.
export const MOST_TRIES = number('MOST_TRIES', 30);

// Finished files cannot be deleted yet, so the disk is what bounds a long run: beyond this all users together take
// their files back instead of finishing them.
export const MOST_STORED_BYTES = number('MOST_STORED_BYTES', 8e9);

// The slowest twentieth of the accepted chunks may take this long.
export const CHUNK_P95_MS = number('CHUNK_P95_MS', 10000);

// A chunk that is to be cut off half way has at most so long.
export const CUT_MS = number('CUT_MS', 20);

// Longer than the server ever takes for a chunk: a request that runs into it is a failure of the test.
export const TIMEOUT = '60s';

function number(name, preset) {
  const value = __ENV[name] === undefined ? preset : Number(__ENV[name]);
  if (!(value > 0)) {
    throw new Error(`${name}: "${__ENV[name]}" is not a number above 0`);
  }
  return value;
}
