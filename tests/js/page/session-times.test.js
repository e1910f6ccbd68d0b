import assert from 'node:assert/strict'
import { test } from 'node:test'

import { groupOf, shortTime } from '../../../static/js/page/session-times.js'

const NOW = new Date(2026, 5, 17, 14, 30) // a Wednesday
/** @param {number[]} parts of the local time: month (from 0), day, hour, minute */
const at = (month, day, hour = 12, minute = 0) => new Date(2026, month, day, hour, minute).getTime()

test('the groups begin at midnight where the reader is', () => {
  assert.equal(groupOf(at(5, 17, 14, 30), NOW), 'Today')
  assert.equal(groupOf(at(5, 17, 0, 0), NOW), 'Today')
  assert.equal(groupOf(at(5, 17, 0, 0) - 1, NOW), 'Yesterday')
  assert.equal(groupOf(at(5, 16, 0, 0), NOW), 'Yesterday')
  assert.equal(groupOf(at(5, 16, 0, 0) - 1, NOW), 'Previous 7 days')
  assert.equal(groupOf(at(5, 10, 0, 0), NOW), 'Previous 7 days')
  assert.equal(groupOf(at(5, 10, 0, 0) - 1, NOW), 'Older')
})

test('a server whose clock is ahead is no reason for a strange group or time', () => {
  assert.equal(groupOf(at(5, 18), NOW), 'Today')
  assert.equal(shortTime(at(5, 18), NOW, 'en'), 'now')
})

test('on the day after the clocks have changed, yesterday is still the day before', () => {
  const now = new Date(2026, 2, 30, 0, 30) // in Europe the 29th has 23 hours
  assert.equal(groupOf(new Date(2026, 2, 29, 0, 0).getTime(), now), 'Yesterday')
  assert.equal(groupOf(new Date(2026, 2, 28, 23, 59).getTime(), now), 'Previous 7 days')
})

test('a time is as short as its group allows', () => {
  const now = NOW.getTime()
  assert.equal(shortTime(now - 59_000, NOW, 'en'), 'now')
  assert.equal(shortTime(now - 60_000, NOW, 'en'), '1 min')
  assert.equal(shortTime(now - 59 * 60_000, NOW, 'en'), '59 min')
  assert.equal(shortTime(now - 60 * 60_000, NOW, 'en'), '1 h')
  assert.equal(shortTime(at(5, 17, 0, 0), NOW, 'en'), '14 h')
  assert.equal(shortTime(at(5, 16, 9, 5), NOW, 'en-GB'), '9:05')
  assert.equal(shortTime(at(5, 12), NOW, 'en'), 'Fri')
  assert.equal(shortTime(at(2, 3), NOW, 'en-GB'), '3 Mar')
  assert.equal(shortTime(new Date(2025, 10, 3).getTime(), NOW, 'en-GB'), '3 Nov 2025')
})

test('just after midnight, what was written just before it is minutes old', () => {
  assert.equal(shortTime(at(5, 16, 23, 50), new Date(2026, 5, 17, 0, 5), 'en'), '15 min')
})
