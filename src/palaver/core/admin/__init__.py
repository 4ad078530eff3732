"""Operator use cases: applications, credentials, agents, knowledge bases, end users' data, and the audit log.

Every change is recorded in the audit log here, under the operator's name. This package does not know its caller (a
command, a console), how results are shown, or any dialect: credential schemes are passed in.
"""
