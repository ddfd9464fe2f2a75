"""Moves the jobs of a database file to a server while services use them.

What has ended and what waits is copied by the numbers of the rows, while triggers in the file note which rows
change; those are copied again. Then, for a moment, no job begins; when none runs any more, triggers refuse every
write to the file. What was noted last is copied, all rows of both sides are compared, and the copy, which no
service could use until then, is opened. So no job can be claimed in both places at one time, wherever this ends;
started again, it goes on.
"""
