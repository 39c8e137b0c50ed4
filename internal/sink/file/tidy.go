package file

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/rea-agent/rea/internal/durable"
)

// A tidier deletes and compresses what was put aside. All that it knows it reads
// from the folder, so it goes on where another one was stopped.
type tidier struct {
	o     Options
	names names
	woken chan struct{}
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func startTidier(o Options, n names) *tidier {
	ctx, stop := context.WithCancel(context.Background())
	t := &tidier{o: o, names: n, woken: make(chan struct{}, 1), stop: stop}
	t.done.Go(func() { t.run(ctx) })
	t.wake()
	return t
}

// wake makes the tidier look at the folder, once for any number of calls.
func (t *tidier) wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// close stops the tidier, in the middle of a file if need be, and waits for it.
func (t *tidier) close() {
	t.stop()
	t.done.Wait()
}

func (t *tidier) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.woken:
			if err := t.tidy(ctx); err != nil && ctx.Err() == nil {
				t.o.Trouble(err)
			}
		}
	}
}

// tidy goes through the folder once. What fails does not stop the rest and is
// tried again the next time.
func (t *tidier) tidy(ctx context.Context) error {
	if t.o.Keep <= 0 && !t.o.Gzip {
		return nil
	}
	list, err := t.names.list()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the folder was removed: nothing is left to tidy
	}
	if err != nil {
		return fmt.Errorf("list files put aside: %w", err)
	}
	var errs []error
	if excess := len(list) - t.o.Keep; t.o.Keep > 0 && excess > 0 {
		for _, a := range list[:excess] {
			errs = append(errs, t.delete(a))
		}
		list = list[excess:]
	}
	for _, a := range list {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, t.names.clear(a))
		if t.o.Gzip && !a.compressed {
			errs = append(errs, compress(ctx, t.names.path(a.at), t.names.folder))
		}
	}
	return errors.Join(errs...)
}

func (t *tidier) delete(a aside) error {
	path := t.names.path(a.at)
	return errors.Join(remove(path), remove(path+compressed), remove(path+unfinished))
}

// compress replaces the file at path by a compressed one.
func compress(ctx context.Context, path, folder string) error {
	in, err := durable.Open(path) // it may be deleted meanwhile
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted by somebody else
	}
	if err != nil {
		return err
	}
	temp := path + unfinished
	err = errors.Join(writeCompressed(ctx, temp, in), in.Close())
	if err == nil {
		err = os.Rename(temp, path+compressed)
	}
	if err != nil {
		return fmt.Errorf("compress %s: %w", path, errors.Join(err, remove(temp)))
	}
	// The name must be safe before what it replaces goes.
	if err := durable.SyncDir(folder); err != nil {
		return err
	}
	return remove(path)
}

// writeCompressed writes and syncs a file at temp with what is in in. The
// fastest level: logs shrink tenfold with it, and the machine is somebody else's.
func writeCompressed(ctx context.Context, temp string, in io.Reader) error {
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(z, reader{ctx, in})
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// A reader reads until ctx ends.
type reader struct {
	ctx context.Context
	in  io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(b)
}
