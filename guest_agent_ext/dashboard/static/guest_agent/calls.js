/*
 *    Licensed under the Apache License, Version 2.0 (the "License"); you may
 *    not use this file except in compliance with the License. You may obtain
 *    a copy of the License at
 *
 *         http://www.apache.org/licenses/LICENSE-2.0
 *
 *    Unless required by applicable law or agreed to in writing, software
 *    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 *    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 *    License for the specific language governing permissions and limitations
 *    under the License.
 */

/* Calls of the dashboard's own endpoints, which answer JSON or bytes. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};

  /* What was refused, in words for the user. */
  class Refusal extends Error {
    constructor(status, message, retryAfter) {
      super(message);
      this.status = status;
      this.retryAfter = retryAfter;
    }

    /* Whether the same call may be answered a moment later. */
    get isPassing() {
      return [0, 429, 502, 503, 504].includes(this.status);
    }
  }

  function sessionEnded() {
    return new Refusal(401, gettext(
      'Your session has ended, or this page is too old. Reload the page.'
    ));
  }

  function headersOf(root, method) {
    // With this, Horizon answers 401 where nobody is logged in.
    const headers = {'X-Requested-With': 'XMLHttpRequest'};
    if (method !== 'GET') {
      headers['X-CSRFToken'] = root.dataset.csrf;
    }
    return headers;
  }

  /* The refusal of an answer that is none of ours, or says why. */
  function refusalOf(status, text, retryAfter) {
    let message;
    try {
      message = JSON.parse(text).message;
    } catch (error) {
      message = undefined;
    }
    if (message) {
      return new Refusal(status, message, retryAfter);
    }
    if (status === 401 || status === 403) {
      return sessionEnded();
    }
    return new Refusal(status, interpolate(
      gettext('The dashboard answers with an error (%s).'), [status]
    ));
  }

  /* Make a call, and return the answer.
   *
   * options: json or body, and signal, as fetch has them
   */
  async function call(root, method, url, options) {
    const request = Object.assign({
      method: method,
      headers: headersOf(root, method),
      credentials: 'same-origin',
      cache: 'no-store',
      // To the login page, whose HTML would look like an answer.
      redirect: 'manual'
    }, options);
    if (request.json !== undefined) {
      request.body = JSON.stringify(request.json);
      request.headers['Content-Type'] = 'application/json';
      delete request.json;
    } else if (request.body !== undefined) {
      request.headers['Content-Type'] = 'application/octet-stream';
    }
    let response;
    try {
      response = await fetch(url, request);
    } catch (error) {
      if (error.name === 'AbortError') {
        throw error;
      }
      throw new Refusal(0, gettext('The dashboard does not answer.'));
    }
    if (response.type === 'opaqueredirect') {
      throw sessionEnded();
    }
    if (!response.ok) {
      throw refusalOf(
        response.status, await response.text(),
        response.headers.get('Retry-After')
      );
    }
    return response;
  }

  /* Make a call, and return the JSON of the answer. */
  async function json(root, method, url, options) {
    const response = await call(root, method, url, options);
    try {
      return await response.json();
    } catch (error) {
      throw sessionEnded();
    }
  }

  /* A random name; crypto.randomUUID is for pages with TLS only. */
  function random() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, function (byte) {
      return byte.toString(16).padStart(2, '0');
    }).join('');
  }

  function sleep(milliseconds) {
    return new Promise(function (resolve) {
      setTimeout(resolve, milliseconds);
    });
  }

  Object.assign(guestAgent, {
    Refusal: Refusal,
    call: call,
    headersOf: headersOf,
    json: json,
    random: random,
    refusalOf: refusalOf,
    sleep: sleep
  });
}());
