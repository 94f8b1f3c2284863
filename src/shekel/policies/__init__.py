"""Policies: a budget for each value of some scope keys.

    policy      one policy, and `per`, which makes it
    matching    which calls it is for
    plans       limits by plan, and which plan a value has
    resolver    asking a program's function for the plan, with a time limit
    standing    its limits as meters: what the gate is told of each
    in_force    the policies that hold now, and what they charge a call to
    unset       keys that nothing sets
    warned      thresholds that were told, value by value
    file        policies, plans and prices in a file
    watch       reading a file again when it changes
    following   the file that a process follows
    environment the deployment that policies may be for

A policy has no object for each user: only a meter in the ledger, which exists while it holds something.
"""
