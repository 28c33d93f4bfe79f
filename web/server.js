// Requests to the server, with its token where it needs one.

const KEY = 'vqdiffusion-token';

/** The token of the address's #fragment, which no server sees, or of this tab. */
function knownToken() {
  const fragment = location.hash.slice(1);
  if (fragment) {
    sessionStorage.setItem(KEY, decodeURIComponent(fragment));
    history.replaceState(null, '', location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

let token = knownToken();
let asking = null;

/** Asks for the token, once for all who need it. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById('token-dialog');
    const field = document.getElementById('token');
    dialog.addEventListener('close', () => {
      token = field.value.trim();
      sessionStorage.setItem(KEY, token);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export class ServerError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.param = body?.error?.param ?? null;
  }
}

/** The response to a request that succeeded. */
export async function request(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    if (token) headers.set('Authorization', `Bearer ${token}`);
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    if (response.status === 401) {
      await askToken();
      continue;
    }
    throw new ServerError(response.status, await response.json().catch(() => null));
  }
}

export async function get(path) {
  return (await request(path)).json();
}

export async function post(path, value) {
  const response = await request(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(value),
  });
  return response.json();
}

export async function postFile(path, file) {
  const headers = { 'Content-Type': file.type || 'application/octet-stream' };
  return (await request(path, { method: 'POST', headers, body: file })).json();
}

export async function remove(path) {
  await request(path, { method: 'DELETE' });
}

/** An address that an <img> can show: images cannot send the token themselves. */
export async function imageUrl(path) {
  return URL.createObjectURL(await (await request(path)).blob());
}

const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/**
 * Follows a stream of events to its end; a lost connection is taken up behind the last event.
 * @param {(name: string, data: any) => void} heard
 */
export async function follow(path, heard) {
  let last = null;
  for (let lost = 0; lost < 5; lost += 1) {
    const headers = last === null ? {} : { 'Last-Event-ID': last };
    const response = await request(path, { headers });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split('\n\n');
        text = blocks.pop();
        for (const block of blocks) {
          const event = parse(block);
          if (event === null) continue;
          lost = 0;
          last = event.id ?? last;
          heard(event.name, JSON.parse(event.data));
          if (['done', 'error', 'cancelled'].includes(event.name)) return;
        }
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // other than a lost connection
    }
    await wait(1);
  }
  throw new Error('the connection to the server was lost');
}

function parse(block) {
  const event = { name: 'message', data: '', id: null };
  for (const line of block.split('\n')) {
    const at = line.indexOf(':');
    if (at <= 0) continue;
    const value = line.slice(at + 1).replace(/^ /, '');
    const field = line.slice(0, at);
    if (field === 'event') event.name = value;
    if (field === 'data') event.data += value;
    if (field === 'id') event.id = value;
  }
  return event.data === '' ? null : event;
}
