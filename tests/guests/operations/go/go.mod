module operations

go 1.24

require github.com/pelton-io/pelton/sdk/go v0.0.0

replace github.com/pelton-io/pelton/sdk/go => ../../../../sdk/go
