package queue

import "time"

// Stats tell how a queue stands.
type Stats struct {
	Bytes     int64     // of the records that are not acknowledged
	Records   uint64    // that are not acknowledged
	Events    uint64    // their numbers
	Oldest    time.Time // when the oldest of them was appended; zero if there is none
	DiskBytes int64     // of the folder, in blocks: what MaxBytes bounds
	MaxBytes  int64
	State     string // ok, full, disk_full, read_only, io_error
	LastError string // the last thing that went wrong, if State is not ok
}

// Stats returns how the queue stands. It does not touch the disk.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{Records: q.unreadLocked(), DiskBytes: q.used, MaxBytes: q.options.MaxBytes, State: q.state}
	for _, g := range q.segments {
		if q.pos.segment == nil || g.id < q.pos.segment.id || g.end == 0 {
			continue
		}
		from, events := int64(headerSize), uint64(0)
		if g == q.pos.segment {
			from, events = q.pos.offset, q.pos.events
		}
		s.Bytes += g.end - from
		s.Events += g.events - min(events, g.events)
	}
	if s.Records > 0 {
		s.Oldest = unix(q.oldest)
	}
	if q.trouble != nil && q.state != "ok" {
		s.LastError = q.trouble.Error()
	}
	return s
}

// unreadLocked counts the records that are not acknowledged.
func (q *Queue) unreadLocked() (n uint64) {
	for _, s := range q.segments {
		if q.pos.segment == nil || s.id < q.pos.segment.id {
			continue
		}
		n += s.records
		if s == q.pos.segment {
			n -= min(n, q.pos.records)
		}
	}
	return n
}

// publishMetrics registers the figures of the queue.
func (q *Queue) publishMetrics() {
	set, lane := q.options.Metrics, []string{"lane", q.options.Lane}
	set.Func("rea_queue_bytes", "Bytes of the records that wait for delivery.", func() float64 { return float64(q.Stats().Bytes) }, lane...)
	set.Func("rea_queue_disk_bytes", "Bytes that the queue takes up on the disk.", func() float64 { return float64(q.Stats().DiskBytes) }, lane...)
	set.Func("rea_queue_max_bytes", "The bound of rea_queue_disk_bytes.", func() float64 { return float64(q.options.MaxBytes) }, lane...)
	set.Func("rea_queue_events", "Events that wait for delivery.", func() float64 { return float64(q.Stats().Events) }, lane...)
	set.Func("rea_queue_oldest_age_seconds", "Age of the oldest event that waits for delivery; 0 if none does.", func() float64 {
		if s := q.Stats(); !s.Oldest.IsZero() {
			return max(0, time.Since(s.Oldest).Seconds())
		}
		return 0
	}, lane...)
}
