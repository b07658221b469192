// What the pages do by themselves. Without it they can be read, and every form can be sent.
(() => {
  'use strict';

  const byId = (id) => document.getElementById(id);
  const say = (element, words) => {
    // A live region is read again when its text changes, and only then.
    if (element && element.textContent !== words) element.textContent = words;
  };

  const warn = (words) => {
    const place = byId('trouble');
    if (!place || place.textContent === words) return;
    // A new element each time: one that changed its height would count as moved.
    const line = document.createElement('span');
    line.textContent = words;
    place.replaceChildren(...(words ? [line] : []));
  };

  // Pictures that are still being made: asked for until they are there, put into the frame that waits for them.
  const FIRST_PAUSE_MS = 1000;
  const LAST_PAUSE_MS = 20000;
  const AT_ONCE = 30;
  let failures = 0;
  let shown = 0;

  const pending = () => [...document.querySelectorAll('[data-picture][data-pending]')];

  const replace = (part, html) => {
    if (!part) return;
    const focused = part.contains(document.activeElement);
    const template = document.createElement('template');
    template.innerHTML = html;
    part.replaceChildren(template.content);
    // The button that had the focus may be gone; its successor, or the card, takes over.
    if (focused) (part.querySelector('button, a') || part.closest('[data-picture]')).focus();
  };

  const apply = (states) => {
    for (const state of states.pictures) {
      const card = document.querySelector(`[data-picture="${state.id}"]`);
      if (!card) continue;
      if (card.dataset.version !== String(state.version)) {
        card.dataset.version = String(state.version);
        replace(card.querySelector('[data-part="figure"]'), state.figure);
        replace(card.querySelector('[data-part="controls"]'), state.controls);
      }
      card.toggleAttribute('data-pending', state.pending);
    }
    if (byId('summary')) say(byId('summary'), states.summary);
    if (byId('cancel-all')) byId('cancel-all').classList.toggle('gone', !states.cancellable);
    warn(states.trouble || '');
  };

  const look = async () => {
    const waiting = pending();
    if (waiting.length === 0) return;
    let pause = FIRST_PAUSE_MS;
    try {
      // More than one request can name: in turns.
      const turn = waiting.slice(shown % waiting.length).concat(waiting).slice(0, AT_ONCE);
      shown += AT_ONCE;
      const ids = [...new Set(turn.map((card) => card.dataset.picture))].join('.');
      const answer = await fetch(`/pictures?ids=${ids}`, { headers: { Accept: 'application/json' } });
      if (answer.status === 401) {
        warn('Your session has ended. Load the page again to sign in.');
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const states = await answer.json();
      apply(states);
      failures = 0;
      pause = states.ask_after_ms || FIRST_PAUSE_MS;
    } catch {
      failures += 1;
      if (failures > 2) warn('The portal does not answer at the moment. This page goes on by itself.');
      pause = Math.min(FIRST_PAUSE_MS * 2 ** failures, LAST_PAUSE_MS);
    }
    setTimeout(look, pause);
  };
  if (pending().length > 0) setTimeout(look, FIRST_PAUSE_MS);

  // Alternative texts: suggested from the description until somebody writes one. The server has the same rule.
  const LEADS = /^(a picture of|picture of|an image of|image of|a photo of|a drawing of|draw) /i;
  const suggested = (description) => {
    const words = description.trim().split(/\s+/).join(' ').replace(LEADS, '').split(' ');
    let text = '';
    for (const word of words) {
      if ([...text].length + 1 + [...word].length > 150) break;
      text += (text ? ' ' : '') + word;
    }
    const [first = '', ...rest] = text;
    return first.toUpperCase() + rest.join('');
  };
  document.addEventListener('input', (event) => {
    const { target } = event;
    if (target.name === 'alt') target.dataset.own = target.value === '' ? '' : 'yes';
    if (!target.matches('[data-prompt]')) return;
    const alt = byId(target.id.replace('prompt', 'alt'));
    if (alt && !alt.dataset.own && (alt.value === '' || alt.dataset.suggested === alt.value)) {
      alt.value = suggested(target.value);
      alt.dataset.suggested = alt.value;
    }
  });

  // One more picture, without asking the server for the page.
  const add = byId('add');
  if (add) {
    add.addEventListener('click', (event) => {
      event.preventDefault();
      const rows = byId('rows');
      const number = rows.children.length;
      if (number >= Number(add.dataset.most)) return;
      const template = byId('row').innerHTML.replaceAll('NUMBER', number).replaceAll('ORDINAL', number + 1);
      rows.insertAdjacentHTML('beforeend', template);
      byId(`prompt-${number}`).focus();
      if (rows.children.length >= Number(add.dataset.most)) add.disabled = true;
    });
  }

  // What has to be mended is read first.
  if (byId('errors')) byId('errors').focus();

  // Answers: saved while they are written.
  const form = document.querySelector('[data-autosave]');
  if (form) {
    const PAUSE_MS = 1000;
    let timer;
    // What browsers let a page that goes away still send.
    const KEEPALIVE_BYTES = 60000;
    let kept = form.elements.text.value;
    let saving = false;
    const save = async () => {
      const text = form.elements.text.value;
      // One after another: an older text must not arrive after a newer one.
      if (saving || text === kept) return;
      saving = true;
      const fields = new URLSearchParams({ csrf: form.elements.csrf.value, text, action: 'save' });
      try {
        const headers = { Accept: 'application/json' };
        const keepalive = String(fields).length < KEEPALIVE_BYTES;
        const answer = await fetch(form.getAttribute('action'), { method: 'POST', body: fields, headers, keepalive });
        if (answer.status === 401) {
          say(byId('saved'), 'You have been signed out. Choose Save to sign in again: your text is kept.');
          return;
        }
        const said = await answer.json();
        if (answer.ok) kept = text;
        const at = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
        say(byId('saved'), answer.ok ? `Saved at ${at}.` : said.error || said.said);
      } catch {
        say(byId('saved'), 'Not saved yet: the portal does not answer. It is tried again.');
        clearTimeout(timer);
        timer = setTimeout(save, 5 * PAUSE_MS);
        return;
      } finally {
        saving = false;
      }
      if (form.elements.text.value !== text) {
        clearTimeout(timer);
        timer = setTimeout(save, PAUSE_MS);
      }
    };
    form.elements.text.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(save, PAUSE_MS);
    });
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'hidden') save();
    });
    form.addEventListener('submit', () => clearTimeout(timer));
  }
})();
