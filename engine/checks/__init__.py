"""What can be known before a start: each module looks at one subject, changes nothing, and tells what to do."""
