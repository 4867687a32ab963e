# SPDX-License-Identifier: Apache-2.0
"""Small simulated hosts, one at a time and drawn from literals, for the tests and for `scripts/calibrate`.

A world is not a scenario: no fleet, no timeline, no scrapes; whoever holds it runs it to an instant and looks.
"""
