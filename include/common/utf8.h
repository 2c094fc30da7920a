/* Just enough UTF-8 to cut text between two characters and to find bytes that are none.
 * Source: RFC 3629, 4 (the table of well-formed byte sequences). */
#pragma once

#include <stddef.h>

/* Bytes of the well-formed character at s (1..4), or 0 when there is none. len is at least 1. */
static inline size_t utf8_character(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;

    if (u[0] < 0x80)
        return 1;
    if (u[0] < 0xc2 || u[0] > 0xf4)
        return 0;

    size_t n = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (len < n)
        return 0;

    /* The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
    unsigned char low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (u[1] < low || u[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* The longest prefix of s that is at most max bytes and does not end inside a character. s holds
 * more than max bytes. */
static inline size_t utf8_cut(const char *s, size_t max)
{
    size_t n = max;

    while (n > 0 && max - n < 4 && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--;
    return ((unsigned char)s[n] & 0xc0) == 0x80 ? max : n;
}
