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

/* Text of a server in the page: as text nodes only, never as HTML. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};

  /* Make an element. */
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) {
      made.className = className;
    }
    if (text !== undefined && text !== null) {
      made.textContent = text;
    }
    return made;
  }

  /* Make an element of a drawing (SVG). */
  function drawing(tag, attributes) {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
    Object.entries(attributes).forEach(function (pair) {
      made.setAttribute(pair[0], pair[1]);
    });
    return made;
  }

  /* Show or hide an element; [hidden] loses to Bootstrap's classes. */
  function show(node, isShown) {
    if (node) {
      node.classList.toggle('hidden', !isShown);
    }
  }

  /* Show a text in an element, or hide the element if there is none. */
  function say(node, text) {
    if (node) {
      node.textContent = text || '';
      show(node, Boolean(text));
    }
  }

  /* Show a status as Bootstrap's label. */
  function label(node, command) {
    node.className = 'label label-' + command.color;
    node.textContent = command.status;
    node.title = command.meaning;
  }

  const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

  function size(bytes) {
    let unit = 0;
    while (bytes >= 1024 && unit < UNITS.length - 1) {
      bytes /= 1024;
      unit += 1;
    }
    return bytes.toFixed(unit && bytes < 100 ? 1 : 0) + ' ' + UNITS[unit];
  }

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), function (char) {
      return char.charCodeAt(0);
    });
  }

  const ESCAPE = '\u001b';
  // Sequences that are whole, and beginnings of some that are not yet.
  const SEQUENCE = new RegExp(
    '^(?:' + ESCAPE + '\\[([0-9;:?<=>]*)[ -/]*([@-~])|' +
    ESCAPE + '\\][^\\u0007' + ESCAPE + ']*(?:\\u0007|' + ESCAPE + '\\\\)|' +
    ESCAPE + '[ -/]*[0-OQ-WYZ`-~])'
  );
  const LONGEST = 4096;
  // As 256-color terminals have the colors from 16 on.
  const STEPS = [0, 95, 135, 175, 215, 255];

  function rgb(red, green, blue) {
    const all = [red, green, blue].map(function (value) {
      return Math.min(255, Math.max(0, value | 0));
    });
    return 'rgb(' + all.join(',') + ')';
  }

  function indexed(index) {
    if (index < 232) {
      const at = index - 16;
      return rgb(STEPS[Math.floor(at / 36)], STEPS[Math.floor(at / 6) % 6],
                 STEPS[at % 6]);
    }
    const grey = 8 + (index - 232) * 10;
    return rgb(grey, grey, grey);
  }

  /* What a command has written, in an element, with colors.
   *
   * Bytes come in pieces that may end within a character or a sequence.
   */
  class Screen {
    constructor(node) {
      this.node = node;
      this.clear();
    }

    clear() {
      this.node.textContent = '';
      this.decoder = new TextDecoder('utf-8');
      this.rest = '';
      this.style = {};
      this.last = null;
    }

    /* Add bytes; at the end, what is incomplete is shown as it is. */
    write(bytes, isEnd) {
      const isBelow = this.node.scrollTop + this.node.clientHeight >=
        this.node.scrollHeight - 4;
      const text = this.rest + this.decoder.decode(bytes, {stream: !isEnd});
      this.rest = '';
      let from = 0;
      while (from < text.length) {
        let at = text.indexOf(ESCAPE, from);
        if (at < 0) {
          at = text.length;
        }
        this.put(text.slice(from, at));
        if (at === text.length) {
          break;
        }
        const found = SEQUENCE.exec(text.slice(at, at + LONGEST));
        if (found) {
          if (found[2] === 'm') {
            this.color(found[1]);
          }
          from = at + found[0].length;
        } else if (!isEnd && text.length - at < LONGEST) {
          this.rest = text.slice(at);
          break;
        } else {
          this.put('\u241b');
          from = at + 1;
        }
      }
      if (isBelow) {
        this.node.scrollTop = this.node.scrollHeight;
      }
    }

    put(text) {
      if (!text) {
        return;
      }
      // Nothing is hidden: control characters have pictures.
      const shown = text.replace(/\r\n?/g, '\n').replace(
        /[\u0000-\u0008\u000b-\u001f\u007f]/g,
        function (char) {
          const code = char.charCodeAt(0);
          return String.fromCharCode(code === 127 ? 0x2421 : 0x2400 + code);
        }
      );
      if (this.last) {
        this.last.appendData(shown);
        return;
      }
      const node = document.createTextNode(shown);
      const span = this.span();
      if (span) {
        span.appendChild(node);
      }
      this.node.appendChild(span || node);
      this.last = node;
    }

    span() {
      const style = this.style;
      const classes = Object.keys(style).filter(function (name) {
        return style[name] === true;
      }).map(function (name) {
        return 'ga-' + name;
      });
      ['fg', 'bg'].forEach(function (side) {
        if (typeof style[side] === 'number') {
          classes.push('ga-' + side + '-' + style[side]);
        }
      });
      if (!classes.length && !style.fg && !style.bg) {
        return null;
      }
      const span = element('span', classes.join(' '));
      // Of numbers only.
      if (typeof style.fg === 'string') {
        span.style.color = style.fg;
      }
      if (typeof style.bg === 'string') {
        span.style.backgroundColor = style.bg;
      }
      return span;
    }

    /* Take over the codes of a sequence for colors. */
    color(text) {
      const codes = text.split(/[;:]/).map(function (code) {
        return parseInt(code, 10) || 0;
      });
      const flags = {1: 'bold', 2: 'dim', 3: 'italic', 4: 'underline',
                     7: 'inverse', 9: 'strike'};
      const ends = {22: ['bold', 'dim'], 23: ['italic'], 24: ['underline'],
                    27: ['inverse'], 29: ['strike'], 39: ['fg'], 49: ['bg']};
      const style = Object.assign({}, this.style);
      while (codes.length) {
        const code = codes.shift();
        if (code === 0) {
          Object.keys(style).forEach(function (name) {
            delete style[name];
          });
        } else if (flags[code]) {
          style[flags[code]] = true;
        } else if (ends[code]) {
          ends[code].forEach(function (name) {
            delete style[name];
          });
        } else if (code === 38 || code === 48) {
          this.longColor(style, code === 38 ? 'fg' : 'bg', codes);
        } else if (code >= 30 && code <= 37) {
          style.fg = code - 30;
        } else if (code >= 40 && code <= 47) {
          style.bg = code - 40;
        } else if (code >= 90 && code <= 97) {
          style.fg = code - 82;
        } else if (code >= 100 && code <= 107) {
          style.bg = code - 92;
        }
      }
      this.style = style;
      this.last = null;
    }

    longColor(style, side, codes) {
      const kind = codes.shift();
      if (kind === 5) {
        const index = Math.min(255, codes.shift() || 0);
        style[side] = index < 16 ? index : indexed(index);
      } else if (kind === 2) {
        style[side] = rgb(codes.shift(), codes.shift(), codes.shift());
      }
    }
  }

  Object.assign(guestAgent, {
    Screen: Screen,
    bytesOf: bytesOf,
    drawing: drawing,
    element: element,
    label: label,
    say: say,
    show: show,
    size: size
  });
}());
