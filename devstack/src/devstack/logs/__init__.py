"""What the processes of a stack wrote, as one stream of events: parsed, selected, merged by time, shown."""
