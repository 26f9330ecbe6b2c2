module github.com/pelton-io/pelton/sdk/go

go 1.24
