export const title = (text) => text.split('\n', 1)[0].replace(/^#+\s*/, '') || 'Untitled';

export const excerpt = (text) => text.split('\n').slice(1).join(' ').trim().slice(0, 60);

export const count = (text) => text.split(/\s+/).filter(Boolean).length;

export const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;
