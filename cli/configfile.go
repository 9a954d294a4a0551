package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// overlay decodes the YAML text over into: keys that the text does not have keep their value. It is stricter than the YAML library: unknown and
// repeated keys, a second document, and a fraction given for a whole number are errors that name the file, the line and the key. An empty
// text changes nothing.
func overlay(file string, text []byte, into any) error {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return yamlError(file, err)
	}
	docs := slices.DeleteFunc(tree.Docs, func(d *ast.DocumentNode) bool { return isComment(d.Body) })
	if len(docs) == 0 {
		return nil
	}
	if len(docs) > 1 {
		return usagef("%s: a configuration is one YAML document, this is a second one", at(file, docs[1].GetToken()))
	}
	if err := checkKeys(file, docs[0].Body, reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	if err := yaml.NodeToValue(docs[0].Body, into, yaml.Strict()); err != nil {
		return yamlError(file, err)
	}
	return nil
}

// at is where a token stands: FILE:LINE, or the option itself for a --set.
func at(file string, t *token.Token) string {
	if strings.HasPrefix(file, "--") {
		return file
	}
	return fmt.Sprintf("%s:%d", file, t.Position.Line)
}

func isComment(n ast.Node) bool {
	_, ok := n.(*ast.CommentGroupNode)
	return n == nil || ok
}

var decodesItself = reflect.TypeFor[yaml.InterfaceUnmarshaler]()

// checkKeys walks node beside the Go type that it will be decoded into.
func checkKeys(file string, node ast.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(decodesItself) {
		return nil
	}
	switch n := node.(type) {
	case *ast.MappingNode:
		if t.Kind() != reflect.Struct {
			return nil // the decoder reports the mismatch
		}
		fields := yamlFields(t)
		for _, pair := range n.Values {
			key := pair.Key.GetToken()
			field, ok := fields[key.Value]
			if !ok {
				return usagef("%s: unknown key %q%s", at(file, key), key.Value, suggest(key.Value, keysOf(fields)))
			}
			if err := checkKeys(file, pair.Value, field); err != nil {
				return err
			}
		}
	case *ast.SequenceNode:
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return nil
		}
		for _, v := range n.Values {
			if err := checkKeys(file, v, t.Elem()); err != nil {
				return err
			}
		}
	case *ast.FloatNode:
		whole := t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
		if whole && n.Value != math.Trunc(n.Value) {
			return usagef("%s: %s is not a whole number", at(file, n.GetToken()), n.GetToken().Value)
		}
	}
	return nil
}

// yamlFields returns the keys of a struct as the YAML library names them, inlined structs included.
func yamlFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || len(f.Index) > 1 {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-":
		case strings.Contains(options, "inline"):
			for k, v := range yamlFields(f.Type) {
				fields[k] = v
			}
		case name == "":
			fields[strings.ToLower(f.Name)] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields
}

func keysOf(fields map[string]reflect.Type) []string {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// yamlError turns the library's several-line report into one line with the file and the line number, in the words of YAML and not of Go.
func yamlError(file string, err error) error {
	e, ok := err.(yaml.Error)
	if !ok || e.GetToken() == nil {
		return usageError{fmt.Errorf("%s: %w", file, err)}
	}
	message := strings.ReplaceAll(e.GetMessage(), "\n", " ")
	switch e := err.(type) {
	case *yaml.TypeError:
		given := strconv.Quote(e.Token.Value)
		switch e.Token.Type {
		case token.SequenceStartType, token.SequenceEntryType:
			given = "a list"
		case token.MappingStartType, token.MappingValueType:
			given = "a mapping"
		}
		message = fmt.Sprintf("%s is given where %s is wanted", given, inWords(e.DstType))
	case *yaml.OverflowError:
		message = fmt.Sprintf("%s is out of range for %s", e.SrcNum, inWords(e.DstType))
	}
	return usagef("%s: %s", at(file, e.GetToken()), message)
}

// jsonError is a value of JSON that has another type than its key wants, in the words of JSON and not of Go; other errors stay as they are.
func jsonError(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	given, known := map[string]string{"string": "text", "bool": "true or false", "array": "a list", "object": "a mapping"}[wrong.Value]
	if !known {
		given = strings.TrimPrefix(wrong.Value, "number ") // a number may stand behind its type
	}
	text := fmt.Sprintf("%s is given where %s is wanted", given, inWords(wrong.Type))
	if wrong.Field != "" {
		text = wrong.Field + ": " + text
	}
	return errors.New(text)
}

// inWords is what a YAML or JSON value has to be to go into a Go type.
func inWords(t reflect.Type) string {
	switch k := t.Kind(); {
	case k == reflect.Pointer:
		return inWords(t.Elem())
	case k >= reflect.Int && k <= reflect.Uint64:
		return "a whole number"
	case k == reflect.Float32 || k == reflect.Float64:
		return "a number"
	case k == reflect.Bool:
		return "true or false"
	case k == reflect.Slice || k == reflect.Array:
		return "a list"
	case k == reflect.Struct || k == reflect.Map:
		return "a mapping"
	}
	return "text"
}

// suggest returns "; did you mean X?" for the nearest of known, or "" when none is near.
func suggest(word string, known []string) string {
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if d := editDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance is the Levenshtein distance: the least number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := diagonal
			if a[i-1] != b[j-1] {
				replace++
			}
			diagonal = row[j]
			row[j] = min(replace, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
