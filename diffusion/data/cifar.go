package data

import (
	"fmt"
	"os"
	"path/filepath"
)

// A row of CIFAR-10's binary version: 1 byte of label, then 32×32 bytes each of red, green, blue.
const (
	cifarSide    = 32
	cifarPlane   = cifarSide * cifarSide
	cifarRow     = 1 + 3*cifarPlane
	cifarClasses = 10
	maxCIFARFile = 1 << 30 // bytes
)

// findCIFAR10 lists the files of the training and the test set, in dir or in the folder that
// the published archive unpacks to.
func findCIFAR10(dir string) (train, test []string, err error) {
	for _, d := range []string{dir, filepath.Join(dir, "cifar-10-batches-bin")} {
		if train = glob(d, "data_batch_*.bin"); train != nil {
			return train, glob(d, "test_batch.bin"), nil
		}
	}
	return nil, nil, bad(dir, "there is no file named data_batch_1.bin: it is not the folder of CIFAR-10's binary version")
}

func openCIFAR10(dir string) (train, test Dataset, err error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, nil, wrap(dir, err)
	}
	trainFiles, testFiles, err := findCIFAR10(dir)
	if err != nil {
		return nil, nil, err
	}
	if train, err = readCIFAR10(trainFiles); err != nil || testFiles == nil {
		return train, nil, err
	}
	test, err = readCIFAR10(testFiles)
	return train, test, err
}

func readCIFAR10(files []string) (Dataset, error) {
	m := &memory{shape: Shape{cifarSide, cifarSide, 3}, classes: cifarClasses}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, wrap(path, err)
		}
		rows, err := readAtMost(f, maxCIFARFile)
		f.Close()
		if err != nil {
			return nil, wrap(path, err)
		}
		if err := m.addCIFAR10(rows); err != nil {
			return nil, wrap(path, err)
		}
	}
	return m, nil
}

// addCIFAR10 appends the images of one file, turning planes into pixels.
func (m *memory) addCIFAR10(rows []byte) error {
	if len(rows) == 0 || len(rows)%cifarRow != 0 {
		return fmt.Errorf("%d bytes are not a multiple of %d, the size of an image with its label: it is truncated or not CIFAR-10", len(rows), cifarRow)
	}
	for ; len(rows) > 0; rows = rows[cifarRow:] {
		label, planes := rows[0], rows[1:cifarRow]
		if label >= cifarClasses {
			return fmt.Errorf("image %d has the label %d, CIFAR-10 has 0 … 9", len(m.labels), label)
		}
		m.labels = append(m.labels, label)
		for p := range cifarPlane {
			m.pixels = append(m.pixels, planes[p], planes[cifarPlane+p], planes[2*cifarPlane+p])
		}
	}
	return nil
}
