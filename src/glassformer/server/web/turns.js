// The turns of a chat: what was sent, and the answer on the screen.

import { textOf } from "./vocabulary.js";

// All turns, the answer of the model last: {role, content}.
export function turnsOf({ chat, tokens, vocabulary }) {
  if (!chat) return [];
  const written = tokens.slice(chat.answerStart).map((token) => token.id);
  return written.length && vocabulary ? [...chat.messages, { role: "assistant", content: textOf(vocabulary, written) }] : chat.messages;
}

// What the next message is sent with: the turns before it and itself.
export function asked(state) {
  const turns = turnsOf(state);
  return [...turns.slice(0, state.editing ?? turns.length), { role: "user", content: state.prompt }];
}

export const withSystem = ({ system }, messages) => (system ? [{ role: "system", content: system }, ...messages] : messages);
