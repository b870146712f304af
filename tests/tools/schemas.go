// Command schemas turns the API description of Kubernetes (swagger.json) into one strict JSON schema for each kind, as kubeconform reads them:
//
//	schemas SWAGGER.json OUTDIR
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

type object = map[string]any

var definitions object

func main() {
	content, err := os.ReadFile(os.Args[1])
	check(err)
	var swagger object
	check(json.Unmarshal(content, &swagger))
	definitions = swagger["definitions"].(object)
	for name, definition := range definitions {
		kinds, _ := definition.(object)["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			write(name, kind.(object))
		}
	}
}

// write makes the schema of one kind; kinds that have no metadata are options of requests and not written down by anybody.
func write(name string, kind object) {
	schema, _ := expand(definitions[name], map[string]bool{name: true}).(object)
	properties, _ := schema["properties"].(object)
	if properties["metadata"] == nil {
		return
	}
	group, version, word := kind["group"].(string), kind["version"].(string), kind["kind"].(string)
	apiVersion := strings.TrimPrefix(group+"/"+version, "/")
	properties["apiVersion"] = object{"type": "string", "enum": []string{apiVersion}}
	properties["kind"] = object{"type": "string", "enum": []string{word}}
	schema["required"] = []string{"apiVersion", "kind"}
	parts := []string{word}
	if group != "" {
		parts = append(parts, strings.Split(group, ".")[0])
	}
	file := strings.ToLower(strings.Join(append(parts, version), "-")) + ".json"
	content, err := json.Marshal(schema)
	check(err)
	check(os.WriteFile(filepath.Join(os.Args[2], file), content, 0o644))
}

// expand follows references; what refers to itself is allowed to be anything the second time. Objects with named fields take no others.
func expand(value any, seen map[string]bool) any {
	switch value := value.(type) {
	case []any:
		list := make([]any, 0, len(value))
		for _, item := range value {
			list = append(list, expand(item, seen))
		}
		return list
	case object:
		if reference, ok := value["$ref"].(string); ok {
			return follow(strings.TrimPrefix(reference, "#/definitions/"), seen)
		}
		result := object{}
		for key, item := range value {
			switch {
			case key == "description" || key == "format" || strings.HasPrefix(key, "x-"):
			case key == "properties":
				properties := object{}
				for property, schema := range item.(object) {
					properties[property] = expand(schema, seen)
				}
				result[key] = properties
			default:
				result[key] = expand(item, seen)
			}
		}
		if result["properties"] != nil && result["additionalProperties"] == nil {
			result["additionalProperties"] = false
		}
		return result
	}
	return value
}

func follow(name string, seen map[string]bool) any {
	switch {
	case strings.HasSuffix(name, "intstr.IntOrString"):
		return object{"oneOf": []object{{"type": "string"}, {"type": "integer"}}}
	case strings.HasSuffix(name, "resource.Quantity"):
		return object{"oneOf": []object{{"type": "string"}, {"type": "number"}}}
	case seen[name]:
		return object{}
	}
	deeper := map[string]bool{name: true}
	for other := range seen {
		deeper[other] = true
	}
	return expand(definitions[name], deeper)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}
