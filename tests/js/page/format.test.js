import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  formatCount,
  formatDuration,
  formatRate,
  formatTime,
  pageLocale,
} from '../../../static/js/page/format.js'

test('a duration is as exact as people care', () => {
  const said = [
    [-5, '0.0 s'],
    [40, '0.0 s'],
    [3_240, '3.2 s'],
    [9_949, '9.9 s'],
    [9_950, '10 s'],
    [59_400, '59 s'],
    [59_600, '1 min 0 s'],
    [125_000, '2 min 5 s'],
    [3_599_700, '1 h 0 min'],
    [3_780_000, '1 h 3 min'],
  ]
  for (const [ms, words] of said) assert.equal(formatDuration(ms), words)
})

test('a rate is told when there is enough to tell it', () => {
  assert.equal(formatRate(2, 1000, 'tokens'), null)
  assert.equal(formatRate(100, 200, 'tokens'), null)
  assert.equal(formatRate(96, 2000, 'tokens'), '48 tokens/s')
  assert.equal(formatRate(5, 2000, 'pieces'), '2.5 pieces/s')
})

test('a noun has its number', () => {
  assert.equal(formatCount(1, 'tool call'), '1 tool call')
  assert.equal(formatCount(1200, 'token'), '1,200 tokens')
})

test('a time is told short, and with its date', () => {
  const { short, long } = formatTime(new Date(2026, 10, 22, 14, 32, 5).getTime(), 'en-GB')
  assert.equal(short, '14:32')
  assert.match(long, /Sunday,? 22 November 2026.* 14:32:05/)
})

test('dates are in the language of the page, as the reader writes it', () => {
  assert.equal(pageLocale(['de-AT', 'en-US', 'en-GB']), 'en-US')
  assert.equal(pageLocale(['en']), 'en')
  assert.equal(pageLocale(['ar-EG', 'eng-x']), 'en-GB')
})
