package cli

import (
	"io"
	"strings"
)

// A Table shows rows in aligned columns. Its cells are escaped, so they may hold
// anything.
type Table struct {
	Right []int // columns that stand to the right, from 0: numbers
	Width int   // of the terminal; the last column is cut to it. 0: as wide as it comes
	Style Style // for the head

	rows [][]string // the first one is the head
}

// NewTable begins a table with its head.
func NewTable(head ...string) *Table {
	t := &Table{}
	t.Row(head...)
	return t
}

// Row adds a row. Cells that are missing are empty.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Escape(c)
	}
	t.rows = append(t.rows, row)
}

// Write writes the table.
func (t *Table) Write(w io.Writer) error {
	widths := t.widths()
	var b strings.Builder
	for i, row := range t.rows {
		line := t.line(row, widths)
		if i == 0 {
			line = t.Style.Bold(line)
		}
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Columns(c))
		}
	}
	return widths
}

func (t *Table) line(row []string, widths []int) string {
	var b strings.Builder
	column := 0
	for i, width := range widths {
		cell := ""
		if i < len(row) {
			cell = row[i]
		}
		last := i == len(widths)-1
		if last && t.Width > 0 {
			cell = cut(cell, t.Width-column)
		}
		pad := strings.Repeat(" ", max(0, width-Columns(cell)))
		if t.right(i) {
			cell, pad = pad+cell, ""
		}
		b.WriteString(cell)
		if !last {
			b.WriteString(pad + "  ")
		}
		column += width + 2
	}
	return strings.TrimRight(b.String(), " ")
}

func (t *Table) right(column int) bool {
	for _, c := range t.Right {
		if c == column {
			return true
		}
	}
	return false
}

// cut shortens s to the columns that are left, but not to nothing.
func cut(s string, columns int) string {
	columns = max(columns, 8)
	if Columns(s) <= columns {
		return s
	}
	n := 1 // for the mark
	for i, r := range s {
		if n += Columns(string(r)); n > columns {
			return s[:i] + "…"
		}
	}
	return s
}
